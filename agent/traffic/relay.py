"""Relays a connection byte for byte: for clients whose own way to the child is closed.

Used for the few that came too late for a slot (stragglers) and for those held in front of an app that
binds its port by itself. Memory is bounded to one chunk a direction, a slow reader slows its writer,
and an end of stream is passed on in each direction by itself (half-close, RFC 9293 section 3.6). A
connection that breaks on one side is reset on the other, so that nobody takes a torn answer for a
whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

CHUNK = 64 << 10  # bytes in flight in each direction
CONNECT_DEADLINE = 5.0  # seconds
CONNECT_AGAIN = 0.05  # seconds after which a connect without an answer is begun anew, doubled each time
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: close sends RST


async def relay(client: socket.socket, address: tuple[str, int], *, source: str | None = None) -> bool:
    """Connect to `address` and relay until both directions have ended; closes `client`.

    Args:
        client: connected and non-blocking; nothing was read from it yet that must not get lost.
        address: IPv4 or IPv6 host and port.
        source: local address to connect from.

    Returns False, with `client` still open and untouched, when nobody accepts at `address`.
    """
    try:
        async with asyncio.timeout(CONNECT_DEADLINE):
            upstream = await _connect(address, source)
    except OSError:  # TimeoutError is one
        return False
    with upstream, client:
        await _both_ways(client, upstream)
    return True


async def _connect(address: tuple[str, int], source: str | None) -> socket.socket:
    """Connect, as often as it takes. Raises OSError when nobody listens.

    A listener with a short queue that is full drops the SYN, and the kernel sends the next one after a
    whole second; that is too long a time for many clients that are let through at once.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    patience = CONNECT_AGAIN
    while True:
        upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if source is not None:
                upstream.bind((source, 0))
            async with asyncio.timeout(patience) as attempt:
                await asyncio.get_running_loop().sock_connect(upstream, address)
            return upstream
        except BaseException as error:
            upstream.close()
            if not (isinstance(error, TimeoutError) and attempt.expired()):
                raise
        patience *= 2


async def _both_ways(client: socket.socket, upstream: socket.socket) -> None:
    for end in (client, upstream):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(client, upstream))
            both.create_task(_pump(upstream, client))
    except* OSError:
        for end in (client, upstream):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def _pump(reader: socket.socket, writer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(reader, CHUNK):
        await loop.sock_sendall(writer, data)
    writer.shutdown(socket.SHUT_WR)
