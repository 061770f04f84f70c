"""The conversation of protocol v2 (v0 where the server refuses that), and what it remembers: capabilities.

They are asked for once and kept, so that a poll is one request. When a request made from memory goes
wrong in a way that a changed server explains (moved, replaced, upgraded), they are asked for again and
the request is made a second time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.source.git import protocol, version0
from agent.source.git.pack import DEFAULT_LIMITS, Pack
from agent.source.git.pktline import Decoder, Garbled, Packet
from agent.source.git.protocol import Capabilities, Ref, RefsReader, RemoteError, Unsupported
from agent.source.git.spool import Spool, TooLarge
from agent.source.git.threads import stoppable
from agent.source.git.transport import Transport

REFS_MAX = 8 << 20  # bytes of an answer to ls-refs
FRAMING = 1.02  # what an answer to fetch may be larger than its pack: side bands, section headers
STALE = frozenset({"GitProtocol", "RepositoryNotFound", "RedirectRefused", "GitServerUnsupported"})
_UNKNOWN_OBJECT = ("not our ref", "unknown object", "not found", "no such object", "missing object")

T = TypeVar("T")
AnyReader: TypeAlias = protocol.FetchReader | version0.FetchReader


class ProtocolClient:
    """`transport.Repository` on a server. `scratch` is where packs too large for memory are kept."""

    def __init__(
        self, transport: Transport, *, scratch: Path | None = None, pack_max: int = DEFAULT_LIMITS.size
    ) -> None:
        self._transport = transport
        self._scratch = scratch
        self._pack_max = pack_max
        self._capabilities: Capabilities | None = None
        self._asking = asyncio.Lock()

    @property
    def where(self) -> str:
        """The repository's URL without credentials."""
        return self._transport.where

    async def refs(self, names: Collection[str]) -> Mapping[str, Ref]:
        """One `ls-refs`."""
        return await self._speak(lambda capabilities: self._ls_refs(capabilities, names))

    async def take(self, want: str, *, depth: int, trees: bool = True) -> Pack:
        """One `fetch`."""
        return await self._speak(lambda capabilities: self._fetch(capabilities, want, depth, trees))

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()

    async def _speak(self, conversation: Callable[[Capabilities], Awaitable[T]]) -> T:
        remembered = self._capabilities
        try:
            return await self._translated(conversation, remembered)
        except Failure as failure:
            if remembered is None or failure.reason not in STALE:
                raise
        if self._capabilities is remembered:  # else another conversation has asked again already
            self._capabilities = None
            self._transport.forget()
        return await self._translated(conversation, self._capabilities)

    async def _translated(
        self, conversation: Callable[[Capabilities], Awaitable[T]], capabilities: Capabilities | None
    ) -> T:
        """Hold a conversation; what is wrong with the other side's bytes becomes a Failure."""
        try:
            return await conversation(capabilities or await self._ask())
        except Garbled as error:
            raise Transient(
                "GitProtocol", f"the Git server sends nonsense: {error}", where=self.where
            ) from error
        except RemoteError as error:
            raise self._refused(error) from error
        except Unsupported as error:
            raise OperatorNeeded(
                "GitServerUnsupported",
                f"the Git server cannot be used: {error}",
                where=self.where,
                remedy="use a server with Git 2.18 or newer",
            ) from error
        except TooLarge as error:
            raise Permanent(
                "RepositoryTooLarge",
                f"the state repository is too large: {error}",
                where=self.where,
                remedy="keep what is deployed out of the state repository",
            ) from error

    def _refused(self, error: RemoteError) -> Failure:
        if any(words in str(error) for words in _UNKNOWN_OBJECT):
            return Transient(
                "CommitNotFound", f"the Git server has no such commit: {error}", where=self.where
            )
        return Transient("GitRefused", f"the Git server refuses: {error}", where=self.where)

    async def _ask(self) -> Capabilities:
        """The capabilities, asked for by one of those who need them."""
        async with self._asking:
            if self._capabilities is None:
                packets = await self._advertisement()
                self._capabilities = _read_advertisement(packets)
            return self._capabilities

    async def _advertisement(self) -> list[Packet]:
        decoder = Decoder()
        packets = decoder.feed(await self._transport.advertise())
        if not decoder.idle:
            raise Garbled("the capability advertisement ends in the middle")
        return packets

    async def _ls_refs(self, capabilities: Capabilities, names: Collection[str]) -> Mapping[str, Ref]:
        if capabilities.version == 0:
            self._capabilities, found = version0.read_advertisement(await self._advertisement())
            return version0.pick(found, names)
        reader, decoder, size = RefsReader(capabilities, names), Decoder(), 0
        async with self._transport.exchange(protocol.ls_refs_request(capabilities, names)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > REFS_MAX:
                    raise Garbled(f"its answer to ls-refs exceeds {REFS_MAX} bytes")
                for packet in decoder.feed(chunk):
                    reader.feed(packet)
        if not reader.done or not decoder.idle:
            raise Garbled("its answer to ls-refs ends in the middle")
        return reader.found

    async def _fetch(self, capabilities: Capabilities, want: str, depth: int, trees: bool) -> Pack:
        digits = protocol.ID_DIGITS[capabilities.object_format]
        if len(want) != digits:
            words = f"ids of this repository have {digits} digits ({capabilities.object_format})"
            raise Transient("CommitNotFound", f"{want} cannot be there: {words}", where=self.where)
        spoken = version0 if capabilities.version == 0 else protocol
        request = spoken.fetch_request(capabilities, want, depth=depth, trees=trees)
        reader = version0.FetchReader(capabilities) if capabilities.version == 0 else protocol.FetchReader()
        spool = Spool(self._pack_max, self._scratch)
        try:
            await self._receive(request, reader, spool)
            return await stoppable(lambda stop: _read_pack(spool, capabilities, reader, stop))
        finally:
            spool.close()

    async def _receive(self, request: bytes, reader: AnyReader, spool: Spool) -> None:
        decoder, size, most = Decoder(), 0, int(self._pack_max * FRAMING) + protocol.SHALLOW_MAX * 80
        async with self._transport.exchange(request) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise TooLarge(f"its pack has more than {self._pack_max} bytes")
                for packet in decoder.feed(chunk):
                    if data := reader.feed(packet):
                        await spool.write(data)
        if not reader.done or not decoder.idle:
            raise Garbled("its answer to fetch ends in the middle")


def _read_pack(spool: Spool, capabilities: Capabilities, reader: AnyReader, stop: threading.Event) -> Pack:
    return Pack(spool.finish(), capabilities.object_format, shallow=reader.shallow, stop=stop)


def _read_advertisement(packets: list[Packet]) -> Capabilities:
    if version0.is_spoken(packets):
        return version0.read_advertisement(packets)[0]
    return protocol.read_advertisement(packets)
