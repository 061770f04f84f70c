"""Programs on an SSH server, one channel each: loaded only where a repository is reached over SSH."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import asyncssh

from agent.kit.text import printable
from agent.source.git.address import Address, hop
from agent.ssh.access import Host, SshAccess
from agent.ssh.connection import Connection, connect, unavailable

__all__ = ["Channel", "connected", "run", "unavailable"]

STDERR_MAX = 4096  # bytes kept of what the server's program complains
BUFFER_MAX = 1 << 20  # bytes received and not yet taken, at which the server is asked to wait


class Channel(asyncssh.SSHClientSession[bytes]):
    """One program on the server: its output as it comes, the end of its complaints, its exit status."""

    def __init__(self) -> None:
        self.exit_status: int | None = None
        self.heard = False
        self._complaints = bytearray()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    @property
    def complaints(self) -> str:
        """What the program wrote to its standard error, fit to be shown."""
        return printable(self._complaints.decode("utf-8", "replace"), 200)

    def send(self, data: bytes) -> None:
        """Send all that there is to send: the program's input ends with it. Raises OSError."""
        assert self._channel is not None
        self._channel.write(data)
        self._channel.write_eof()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The program's output until its end. Raises asyncssh.Error or OSError when the connection broke."""
        while True:
            while self._chunks:
                data = self._chunks.popleft()
                self._size -= len(data)
                if self._channel is not None and not self._ended and self._size < BUFFER_MAX:
                    self._channel.resume_reading()
                yield data
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Drop the channel; idempotent."""
        if self._channel is not None and not self._ended:
            self._channel.abort()

    # What asyncssh calls.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """The program wrote something."""
        self.heard = True
        if datatype is not None:
            self._complaints += data[: STDERR_MAX - len(self._complaints)]
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= BUFFER_MAX and self._channel is not None:
            self._channel.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """The program closed its output: its exit status is still to come."""
        return True

    def exit_status_received(self, status: int) -> None:
        """The program ended."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, in order or not."""
        self._ended, self._error = True, exc
        self._news.set()


async def connected(address: Address, access: SshAccess) -> Connection:
    """A connection to a Git server, through the hops. See `agent.ssh.connection.connect`."""
    hosts = []
    for place in (*map(hop, access.jumps), address):
        shown = place.shown.rpartition("/hop")[0] if place.path == "/hop" else place.shown
        hosts.append(Host(place.host, place.port, place.user, shown))
    return await connect(hosts, access)


async def run(connection: Connection, command: str) -> Channel:
    """Start a program. Raises asyncssh.Error, OSError."""
    channel = Channel()
    await connection.ssh.create_session(
        lambda: channel, command, env={"GIT_PROTOCOL": "version=2"}, encoding=None
    )
    return channel
