"""What children say: the last lines of each are kept, and all of it is passed through.

Nothing here waits: a pipe is read in bounded chunks, and lines for which the keeper's own standard
output has no room are counted and dropped. So are those of a child that says more than `RATE`: it is
heard as fast as it speaks, but fills neither a disk nor whatever takes the standard output.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections import deque

from agent.keeper.scribe import Plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.keeper.scribe import Scribe

CHUNK = 1 << 16  # bytes read at once: the usual capacity of a pipe
DRAIN_CHUNKS = 16  # read at most at a child's end, when others may still hold its pipe and write
LINE_MAX = 4096  # bytes; a longer line becomes several
LINES_KEPT = 200
RATE = 4 << 20  # bytes a second of one child that are passed on, for long
BURST = 16 << 20  # bytes that it may say at once
TAIL_MAX = 512 << 10  # bytes told at once, so that an answer fits a frame however it is escaped
SINK_MAX = 256 << 10  # bytes waiting for a slow reader of the keeper's standard output; one chunk may pass it


class Sink:
    """The keeper's standard output, written without ever waiting for its reader.

    O_NONBLOCK belongs to the open file, which parents and the agent share; so a pipe or a terminal is
    opened anew, a socket is sent to with MSG_DONTWAIT, and what is left (a regular file, or a pipe of
    another user) is asked by poll(2) before at most PIPE_BUF bytes are written. A file always says that it
    has room, and may lie on a disk that does not answer: `scribe` writes it, as long as there is one.
    """

    def __init__(self, fd: int, scribe: Scribe | None = None) -> None:
        self.fd = fd
        self._scribe = scribe
        self._plain = Plain()
        self._pending = bytearray()
        self._dropped = 0
        self._socket: socket.socket | None = None
        self._ask = False
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            return
        try:
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self.fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            self._ask = True

    @property
    def waiting(self) -> bool:
        """Whether something is left to write."""
        return bool(self._pending)

    def put(self, prefix: bytes, lines: Sequence[bytes]) -> None:
        """Pass lines on (at least one), each after `prefix`; drop and count them when there is no room."""
        if self._scribe is not None and self._scribe.begun():
            self._scribe.put(self._plain, prefix.decode(errors="replace").removesuffix(" | "), lines)
            return
        if len(self._pending) > SINK_MAX:
            self._dropped += len(lines)
        else:
            self._pending += prefix + (b"\n" + prefix).join(lines) + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write what can be written now, whole lines at a time: others write to the same place."""
        while self._pending:
            end = self._pending.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
            try:
                written = self._write(bytes(self._pending[:end]))
            except BlockingIOError:
                return
            except OSError:  # the reader is gone: nobody is left to tell
                self._pending.clear()
                return
            del self._pending[:written]
            if self._dropped and not self._pending:
                self._pending += b"keeper | %d lines dropped: the reader is too slow\n" % self._dropped
                self._dropped = 0

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._ask and not select.select([], [self.fd], [], 0)[1]:
            raise BlockingIOError
        return os.write(self.fd, data)


class Output:
    """The pipe that is a child's standard output and standard error, and its last lines.

    `keep` hears every line that is passed on, a few at a time.
    """

    def __init__(
        self, fd: int, prefix: str, sink: Sink, keep: Callable[[Sequence[bytes]], object] | None = None
    ) -> None:
        self.fd = fd
        self._prefix = f"{prefix} | ".encode() if prefix else b""
        self._sink = sink
        self._keep = keep
        self._lines: deque[bytes] = deque(maxlen=LINES_KEPT)
        self._rest = b""
        self._allowed = float(BURST)
        self._since = time.monotonic()
        self._dropped = 0
        os.set_blocking(fd, False)

    def read(self) -> bool:
        """Take one chunk; False when the pipe has ended. Raises BlockingIOError when it is empty."""
        data = os.read(self.fd, CHUNK)
        text = self._rest + data
        passed = self._may_pass(len(data))
        if passed:
            lines = text.split(b"\n")
        else:
            lines = text.rsplit(b"\n", LINES_KEPT + 1)[-LINES_KEPT - 1 :]
            self._dropped += text.count(b"\n")
        self._rest = lines.pop()
        if not data or len(self._rest) > LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        if max(map(len, lines), default=0) > LINE_MAX:
            lines = [line[at : at + LINE_MAX] for line in lines for at in range(0, len(line) or 1, LINE_MAX)]
        if lines and (data or lines[-1]):
            self._lines.extend(lines[-LINES_KEPT:])
            if passed:
                self._pass(lines)
        elif self._dropped and not data:
            self._pass([])
        return bool(data)

    def _may_pass(self, size: int) -> bool:
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + (now - self._since) * RATE)
        self._since = now
        if size > self._allowed:
            return False
        self._allowed -= size
        return True

    def _pass(self, lines: list[bytes]) -> None:
        if self._dropped:
            note = b"keeper | %d lines dropped: more than %d MiB a second" % (self._dropped, RATE >> 20)
            lines = [note, *lines]
            self._dropped = 0
        self._sink.put(self._prefix, lines)
        if self._keep is not None:
            self._keep(lines)

    def drain(self) -> bool:
        """Take what is in the pipe now, within bounds; False when the pipe has ended."""
        try:
            return all(self.read() for _ in range(DRAIN_CHUNKS))
        except BlockingIOError:
            return True

    def tail(self, count: int) -> list[str]:
        """The last lines, at most `count` and TAIL_MAX bytes, oldest first."""
        found: list[str] = []
        room = TAIL_MAX
        for line in reversed([*self._lines, self._rest] if self._rest else self._lines):
            room -= len(line)
            if len(found) >= count or room < 0:
                break
            found.append(line.decode(errors="replace"))
        return found[::-1]

    def close(self) -> None:
        """Close the pipe; the lines stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
