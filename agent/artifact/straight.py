"""The rest of a long body, straight from its connection.

The client library copies each byte once more than the kernel does, often twice, and hands it on in small
pieces: of a GiB that is as much of the processor as its digest. So once the head of an answer is read, and
its length is known, this takes the library's place at the transport until the body is whole. Of what came
with the head the library is asked; the connection is closed afterwards, as for a body not read to its end.
"""

from __future__ import annotations

import asyncio
from collections import deque

import aiohttp

from agent.artifact.limits import MIB

LONG = 16 * MIB  # for what is shorter, a connection that can be used again is worth more
_READ = MIB // 2  # bytes asked of the kernel at once; asyncio would ask for a quarter
_MOST = 1 * MIB  # reading stops while so much waits to be taken


class Straight(asyncio.Protocol):
    """Takes over from the protocol of `transport` at once. `close` it in any case.

    Args:
        begun: what of the body is here already.
        left: how many bytes are to come.
        idle: seconds of silence that are borne.
    """

    def __init__(self, transport: asyncio.Transport, begun: bytes, left: int, idle: float) -> None:
        self._transport = transport
        self._library = transport.get_protocol()
        self._pieces = deque([begun] if begun else [])
        self._waiting = len(begun)
        self._left = left
        self._idle = idle
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        if hasattr(transport, "max_size"):  # of the transports of asyncio, not of all there are
            transport.max_size = _READ
        transport.set_protocol(self)

    async def read(self) -> bytes:
        """What is there next; b"" at the end. Raises aiohttp.ClientPayloadError, TimeoutError."""
        while not self._pieces:
            if not self._left:
                return b""
            if self._lost:
                raise aiohttp.ClientPayloadError("the connection ended before the body did")
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(self._idle):
                await self._waiter
        piece = self._pieces.popleft()
        before, self._waiting = self._waiting, self._waiting - len(piece)
        if self._waiting < _MOST <= before and not self._lost:
            self._transport.resume_reading()
        return piece

    def close(self) -> None:
        """Give the connection back, to be closed. May be called again."""
        if not self._lost and self._transport.get_protocol() is self:
            self._transport.set_protocol(self._library)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. What comes behind the end is dropped, with the connection."""
        piece = data[: self._left] if len(data) > self._left else data
        if not piece:
            return
        self._left -= len(piece)
        self._pieces.append(piece)
        before, self._waiting = self._waiting, self._waiting + len(piece)
        if before < _MOST <= self._waiting:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lost = True
        self._library.connection_lost(error)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def straight(response: aiohttp.ClientResponse, idle: float) -> Straight | None:
    """Take over the body of `response`, of which nothing was read; None when the library had better read it.

    That is for short ones, and for all that do not come plainly: in TLS, in chunks, paused already.
    """
    size = response.content_length or 0
    transport = response.connection.transport if response.connection is not None else None
    if response.status not in (200, 206) or size < LONG or transport is None:
        return None
    if "Transfer-Encoding" in response.headers or transport.get_extra_info("sslcontext") is not None:
        return None
    if not transport.is_reading() or response.content.exception() is not None:
        return None
    begun = response.content.read_nowait()
    return Straight(transport, begun, size - len(begun), idle)
