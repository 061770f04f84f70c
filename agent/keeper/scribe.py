"""Children's lines on disk, written by a process of its own, so that no disk ever keeps a child waiting.

    keeper --one message a chunk, never waiting--> scribe --open, append, rotate--> FILE, FILE.1, FILE.2 ...

The scribe is a copy of the keeper (fork(2) without exec: it shares nearly all its memory), begun with the
first line and begun again when it is gone. Messages are datagrams of a socket pair (SOCK_SEQPACKET,
unix(7)); those for which there is no room are counted and dropped. It ends when the keeper closes its end.

A line of a file is `2026-11-21T07:38:18.123Z web[4711]: text`. FILE.1 is the newest of the older ones.

Where the keeper's own standard output is a file, the scribe writes that, too: it has it as a descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import socket
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

MESSAGE_MAX = 1 << 18  # bytes; a chunk of a child's output with its last line is far less
QUEUE_MAX = 4 << 20  # bytes waiting for a slow disk
AGAIN = 1.0  # seconds before a scribe that could not be begun is tried again
PLAIN = 4  # its descriptor of the keeper's standard output
OURS = "keeper"  # whose lines about lost lines are


class Log:
    """Where the lines of one child go: a file of at most `size` bytes and `count - 1` older ones."""

    def __init__(self, path: str, size: int, count: int) -> None:
        if "\0" in path or not path.startswith("/") or size < 1 or count < 1:
            raise ValueError(f"no log can be kept as {path!r}, {size}, {count}")
        self.path, self.size, self.count = path, size, count

    def message(self, who: str, lines: Sequence[bytes]) -> bytes:
        """What the scribe is told."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        head = f"{self.path}\0{self.size}\0{self.count}\0{stamp} {who.replace(chr(0), '')}: \0"
        return head.encode(errors="surrogateescape") + b"\n".join(lines)


class Plain:
    """The keeper's own standard output."""

    def message(self, who: str, lines: Sequence[bytes]) -> bytes:
        """What the scribe is told."""
        head = f"{who.replace(chr(0), '')} | " if who else ""
        return f"\0\0\0{head}\0".encode(errors="surrogateescape") + b"\n".join(lines)


class Scribe:
    """The keeper's end. `output` is a file that `Plain` lines go to, -1 for none."""

    def __init__(self, output: int = -1) -> None:
        self.fd = -1
        self._output = output
        self._sock: socket.socket | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._dropped: dict[Log | Plain, int] = {}
        self._not_before = 0.0
        self._ending = False
        self.pid = 0
        self.over = False  # it is gone, or knows all: `close` is due

    @property
    def waiting(self) -> bool:
        """Whether something is left to say, and somebody there to say it to."""
        return bool(self._queue) and self._sock is not None and not self.over

    def put(self, log: Log | Plain, who: str, lines: Sequence[bytes]) -> None:
        """Have lines (at least one) written; drop and count them when there is no room."""
        if self._queued > QUEUE_MAX or not self.begun():
            self._dropped[log] = self._dropped.get(log, 0) + len(lines)
            return
        self._enqueue(log.message(who, lines))
        self.flush()

    def flush(self) -> None:
        """Say what can be said now."""
        while self._queue and self._sock is not None and not self.over:
            try:
                self._sock.send(self._queue[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self.over = True
                return
            self._queued -= len(self._queue.popleft())
            if not self._queue and self._dropped:
                for log, count in self._dropped.items():
                    self._enqueue(log.message(OURS, [b"%d lines could not be kept" % count]))
                self._dropped.clear()
        if self._ending:
            self.over = True

    def end(self) -> None:
        """Let it end once it has heard everything."""
        self._ending = True
        self.flush()

    def _enqueue(self, message: bytes) -> None:
        self._queue.append(message)
        self._queued += len(message)

    def close(self) -> None:
        """Let go of it; another one is begun with the next line, unless that was the end."""
        if self._sock is not None:
            self._sock.close()
        self._sock, self.fd, self.pid, self.over = None, -1, 0, False

    def begun(self) -> bool:
        """Whether there is somebody to say it to, or is from now on."""
        if self._sock is None and not self._ending and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + AGAIN
            with contextlib.suppress(OSError):
                self._sock, self.pid = _begin(self._output)
                self.fd = self._sock.fileno()
        return self._sock is not None and not self.over


def _begin(output: int) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if (pid := os.fork()) == 0:
            _become(theirs.detach(), output)
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return ours, pid


def _become(fd: int, output: int) -> NoReturn:
    """The copy's whole life: but its end of the socket pair and `output` nothing of the keeper's is open."""
    try:
        gc.disable()  # objects that are never used again must not close descriptors that are
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # the keeper says when it is time
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        output = fcntl.fcntl(output, fcntl.F_DUPFD, PLAIN + 1) if output >= 0 else output
        null = os.open("/dev/null", os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.dup2(fd, 3)
        if output >= 0:
            os.dup2(output, PLAIN)
        os.closerange(PLAIN + (output >= 0), 1 << 20)
        _listen(socket.socket(fileno=3))
    finally:
        os._exit(0)


def _listen(sock: socket.socket) -> None:
    lost: dict[str, int] = {}
    while message := sock.recv(MESSAGE_MAX):
        path, size, count, head, text = message.split(b"\0", 4)
        if not path:
            with contextlib.suppress(OSError):
                os.write(PLAIN, head + text.replace(b"\n", b"\n" + head) + b"\n")
            continue
        write(os.fsdecode(path), int(size), int(count), head, text.split(b"\n"), lost)


def write(path: str, size: int, count: int, head: bytes, lines: list[bytes], lost: dict[str, int]) -> None:
    """Append lines, each after `head`; begin a new file before this one would pass `size` bytes.

    `lost` counts the lines that could not be written, by path, until that can be told.
    """
    if missed := lost.get(path):
        lines = [b"(%d lines before could not be written)" % missed, *lines]
    data = head + (b"\n" + head).join(lines) + b"\n"
    try:
        fd = _open(path)
        try:
            if (held := os.fstat(fd).st_size) and held + len(data) > size:
                _rotate(path, count)
                os.close(fd)
                fd = _open(path)
            os.write(fd, data)
        finally:
            os.close(fd)
        lost.pop(path, None)
    except OSError:
        lost[path] = (missed or 0) + len(lines) - (1 if missed else 0)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _rotate(path: str, count: int) -> None:
    names = [path, *(f"{path}.{number}" for number in range(1, count))]
    for older, newer in reversed(list(zip(names[1:], names, strict=False))):
        with contextlib.suppress(FileNotFoundError):
            os.rename(newer, older)
    if count == 1:
        os.unlink(path)
