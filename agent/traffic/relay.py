"""Relays a connection byte for byte: for clients whose own way to the child is closed.

All connections of an app with `socket: relay`; else the few that came too late for a slot (stragglers)
and those held in front of an app that binds its port by itself. Memory is bounded to one chunk a
direction, a slow reader slows its writer, and an end of stream is passed on in each direction by itself
(half-close, RFC 9293 section 3.6). A connection that breaks on one side is reset on the other, so that
nobody takes a torn answer for a whole one.

Bytes are moved by the event loop's readiness callbacks, one recv and one send each: a task for each
direction and a future for each chunk passed less than half as many requests a second, uvloop in place of
asyncio's own loop between nothing and a seventh more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

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
        upstream = await connect(address, source=source)
    except OSError:  # TimeoutError is one
        return False
    await join(client, upstream)
    return True


async def connect(address: tuple[str, int], *, source: str | None = None) -> socket.socket:
    """Connect, as often as it takes. Raises OSError when nobody listens, or does not accept for long.

    A listener with a short queue that is full drops the SYN, and the kernel sends the next one after a
    whole second; that is too long a time for many clients that are let through at once.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    patience = CONNECT_AGAIN
    async with asyncio.timeout(CONNECT_DEADLINE):
        while True:
            upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                if source is not None:
                    upstream.bind((source, 0))
                # The handshake over loopback is done within the first call: the second one tells, and
                # spares the event loop two rounds.
                if upstream.connect_ex(address) and upstream.connect_ex(address):
                    async with asyncio.timeout(patience) as attempt:
                        await asyncio.get_running_loop().sock_connect(upstream, address)
                return upstream
            except BaseException as error:
                upstream.close()
                if not (isinstance(error, TimeoutError) and attempt.expired()):
                    raise
            patience *= 2


async def join(client: socket.socket, upstream: socket.socket) -> None:
    """Relay between two connected, non-blocking sockets until both directions have ended; closes both."""
    with upstream, client:
        for end in (client, upstream):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = asyncio.get_running_loop().create_future()
        forth = Flow(client, upstream, whole)
        back = Flow(upstream, client, whole)
        forth.begin(back)
        back.begin(forth)
        try:
            await whole
        except OSError:
            for end in (client, upstream):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        finally:
            forth.stop()
            back.stop()
            if whole.done() and not whole.cancelled():
                whole.exception()  # known also when the caller was cancelled at that moment


class Flow:
    """One direction: either it waits for bytes of `source`, or for `target` to take the rest of a chunk.

    Args:
        source: read from.
        target: written to.
        whole: gets its result when this and the other direction have ended, an OSError when one breaks.
    """

    __slots__ = (
        "_from", "_loop", "_other", "_recv", "_rest", "_send", "_target", "_to", "_waits", "_whole", "ended",
    )  # fmt: skip

    def __init__(self, source: socket.socket, target: socket.socket, whole: asyncio.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        # Numbers, not sockets: for a socket it does not know the loop writes out a long text, each time.
        self._from, self._to = source.fileno(), target.fileno()
        self._recv: Callable[[int], bytes] = source.recv
        self._send: Callable[[bytes | memoryview], int] = target.send
        self._target = target
        self._whole = whole
        self._rest = memoryview(b"")
        self._other: Flow | None = None
        self._waits = False
        self.ended = False

    def begin(self, other: Flow) -> None:
        """Move bytes from now on; `other` is the opposite direction."""
        self._other = other
        self._waits = True
        self._loop.add_reader(self._from, self._readable)

    def stop(self) -> None:
        """Wait for nothing any more. Call before the sockets are closed."""
        if self._waits:
            self._waits = False
            if self._rest:
                self._loop.remove_writer(self._to)
            else:
                self._loop.remove_reader(self._from)

    def _readable(self) -> None:
        try:
            data = self._recv(CHUNK)
            if not data:
                self._end()
                return
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error)
            return
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._loop.remove_reader(self._from)
            self._loop.add_writer(self._to, self._writable)

    def _writable(self) -> None:
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error)
            return
        if not self._rest:
            self._loop.remove_writer(self._to)
            self._loop.add_reader(self._from, self._readable)

    def _end(self) -> None:
        """The source has said its last: tell the target. Raises OSError."""
        self.stop()
        self.ended = True
        self._target.shutdown(socket.SHUT_WR)
        if self._other is not None and self._other.ended and not self._whole.done():
            self._whole.set_result(None)

    def _break(self, error: OSError) -> None:
        # At once and both: the kernel tells of a reset once, and the other flow would take it for an end.
        self.stop()
        if self._other is not None:
            self._other.stop()
        if not self._whole.done():
            self._whole.set_exception(error)
