"""Git over SSH: a transport that runs git-upload-pack(1) on the server, one channel an exchange.

One connection, made when first needed, is kept for all exchanges. Where it turns out to be gone, the next
one is made silently, as long as no answer had begun. Protocol v2 is asked for by the variable GIT_PROTOCOL,
which a server may ignore: then it speaks v0. asyncssh is loaded with the first connection, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.source.git.address import Address
from agent.source.git.pktline import Decoder, Garbled, Mark
from agent.ssh.access import SshAccess

if TYPE_CHECKING:
    from agent.source.git.ssh_session import Channel
    from agent.ssh.connection import Connection

ADVERTISEMENT_MAX = 8 << 20  # with protocol v0 it names every ref
FLUSH = b"0000"
_NOT_THERE = ("not found", "could not be found", "does not exist", "not appear to be a git", "cannot find")
_NOT_ALLOWED = ("denied", "permission", "not allowed", "unauthorized", "forbidden")


class SshTransport:
    """Transport over ssh://, see `transport.Transport` for the failures raised, and HostKeyRefused."""

    def __init__(self, address: Address, access: SshAccess | None = None) -> None:
        self._address = address
        self._access = access or SshAccess()
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    @property
    def where(self) -> str:
        """The URL."""
        return self._address.shown

    async def advertise(self) -> bytes:
        """The server's advertisement: a channel that asks for nothing."""
        async with self._upload_pack() as (channel, advertisement):
            channel.send(FLUSH)
            return advertisement

    @asynccontextmanager
    async def exchange(self, request: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """One channel: its advertisement, which is known already, the request, the answer."""
        async with self._upload_pack() as (channel, _):
            channel.send(request)
            yield self._answer(channel)

    def forget(self) -> None:
        """Nothing is remembered about where the server is."""

    async def aclose(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    @asynccontextmanager
    async def _upload_pack(self) -> AsyncIterator[tuple[Channel, bytes]]:
        """A channel on which upload-pack has said what it has to offer."""
        connection, fresh = await self._connected()
        try:
            channel, advertisement = await self._begin(connection)
        except Transient:
            if fresh:
                raise
            await self._drop(connection)
            connection, _ = await self._connected()
            channel, advertisement = await self._begin(connection)
        try:
            yield channel, advertisement
        finally:
            channel.close()

    async def _begin(self, connection: Connection) -> tuple[Channel, bytes]:
        import asyncssh

        from agent.source.git.ssh_session import run, unavailable

        channel: Channel | None = None
        try:
            channel = await run(connection, f"git-upload-pack {shlex.quote(self._address.path)}")
            return channel, await self._advertisement(channel)
        except (asyncssh.Error, OSError) as error:
            raise unavailable(error, self.where, self._access.words) from error
        except BaseException:
            if channel is not None:
                channel.close()
            if channel is None or not channel.heard:  # a connection that went silent is not used again
                await self._drop(connection)
            raise

    async def _advertisement(self, channel: Channel) -> bytes:
        decoder, data = Decoder(), bytearray()
        async for chunk in channel.chunks():
            data += chunk
            if len(data) > ADVERTISEMENT_MAX:
                raise Garbled(f"the advertisement exceeds {ADVERTISEMENT_MAX} bytes")
            if Mark.FLUSH in decoder.feed(chunk):
                return bytes(data)
        raise self._refused(channel)

    async def _answer(self, channel: Channel) -> AsyncIterator[bytes]:
        import asyncssh

        from agent.source.git.ssh_session import unavailable

        try:
            async for chunk in channel.chunks():
                yield chunk
        except (asyncssh.Error, OSError) as error:
            raise unavailable(error, self.where, self._access.words) from error

    def _refused(self, channel: Channel) -> Failure:
        """upload-pack ended without an advertisement: what its words mean, which differ with every forge."""
        words = channel.complaints or f"exit code {channel.exit_status}"
        message = f"the Git server refuses: {words}"
        if any(word in words.lower() for word in _NOT_THERE):
            remedy = "check the URL, and that the deploy key belongs to this repository"
            return OperatorNeeded("RepositoryNotFound", message, where=self.where, remedy=remedy)
        if any(word in words.lower() for word in _NOT_ALLOWED):
            remedy = "let the deploy key read this repository"
            return OperatorNeeded("GitAuth", message, where=self.where, remedy=remedy)
        return Transient("GitRefused", message, where=self.where)

    async def _connected(self) -> tuple[Connection, bool]:
        """The connection, and whether it was made just now."""
        async with self._connecting:
            if self._connection is not None and not self._connection.is_closed:
                return self._connection, False
            await self.aclose()
            session = await asyncio.to_thread(importlib.import_module, "agent.source.git.ssh_session")
            self._connection = await session.connected(self._address, self._access)
            return self._connection, True

    async def _drop(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
        await connection.aclose()
