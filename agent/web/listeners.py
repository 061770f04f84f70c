"""Listening sockets of the face: bounded in connections, patient for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web

from agent.config import Address
from agent.domain.errors import OperatorNeeded

CONNECTIONS_MAX = 512  # of one listener at once
LINGER = 2.0  # seconds that a body nobody wants is read on, so that the client can read why
KEEPALIVE = 75.0  # seconds for the head of a request, counted from connecting or from the last answer
WEBHOOK_KEEPALIVE = 15.0  # seconds; the same for the listener that strangers reach
STALLED = 30_000  # milliseconds a client may leave what is sent to it unacknowledged (tcp(7))
BACKLOG = 256
_REASONS = {errno.ENOSPC: "DiskFull", errno.EDQUOT: "DiskFull", errno.EROFS: "DiskReadOnly"}
OF_THE_DISK = frozenset(_REASONS.values())
PATH_MAX = 107  # bytes of a path in struct sockaddr_un (unix(7))


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _bounded(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    server = runner.server
    assert server is not None
    return lambda: server() if len(server.connections) < CONNECTIONS_MAX else _Refusal()


async def listen_tcp(runner: web.AppRunner, address: Address) -> asyncio.Server:
    """Listen on an address; port 0 lets the kernel choose. Raises OperatorNeeded."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            _bounded(runner), address.host, address.port, backlog=BACKLOG, reuse_address=True
        )
    except OSError as error:
        reason = "PortTaken" if error.errno == errno.EADDRINUSE else "AddressUnavailable"
        raise OperatorNeeded(
            reason,
            f"cannot listen: {os.strerror(error.errno) if error.errno else error}",
            where=str(address),
            remedy="give another HOST:PORT, or end the program that has it",
        ) from None
    for listening in server.sockets:  # connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED)
    return server


def bound(server: asyncio.Server) -> Address:
    """Where a TCP server really listens."""
    host, port = server.sockets[0].getsockname()[:2]
    return Address(host, port)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A socket's path; one that is too long for its address is named through its open directory."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class UnixListener:
    """A Unix socket that only its owner may open, and whose file is ours as long as nobody replaces it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0

    async def start(self, runner: web.AppRunner) -> None:
        """Listen; a socket that nobody listens on any more is replaced. Raises OperatorNeeded."""
        listening = await asyncio.to_thread(self._bind)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(_bounded(runner), sock=listening, backlog=BACKLOG)
        except BaseException:
            listening.close()
            raise

    def _bind(self) -> socket.socket:
        path = self.path
        beside = path.with_name(f".{os.getpid()}~")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_if_alive()
            beside.unlink(missing_ok=True)
            with _address(beside) as address:
                listening.bind(address)
            beside.chmod(0o600)  # before anybody can connect: it does not listen yet
            listening.listen(BACKLOG)
            self._inode = beside.stat().st_ino
            beside.rename(path)
        except OSError as error:
            listening.close()
            with contextlib.suppress(OSError):
                beside.unlink()
            raise self._refused(
                error.strerror or str(error), "let the agent write there", _REASONS.get(error.errno or 0)
            ) from None
        except BaseException:
            listening.close()
            raise
        listening.setblocking(False)
        return listening

    def _refuse_if_alive(self) -> None:
        """Raise OperatorNeeded when somebody listens there, or when it is no socket."""
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise self._refused(
                    "something else is there", "remove it, or give another path: --socket PATH"
                )
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.setblocking(False)
            try:
                with _address(self.path) as address:
                    caller.connect(address)
            except ConnectionRefusedError:
                return  # left behind by one that is dead
            except BlockingIOError:
                pass  # its queue is full
        raise self._refused(
            "another agent listens there", "one agent a data directory; is it running already?"
        )

    def _refused(self, message: str, remedy: str, reason: str | None = None) -> OperatorNeeded:
        return OperatorNeeded(reason or "SocketUnusable", message, where=str(self.path), remedy=remedy)

    def close(self) -> None:
        """Stop listening and remove the file, if it is still ours. Connections go on."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
