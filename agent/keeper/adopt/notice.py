"""What the kernel asks and is answered over a seccomp listener: three structures, four ioctls.

One notice lives from `receive` to its one answer; afterwards, and when its process was killed meanwhile,
it is not valid any more, and the kernel refuses every use of its number with ENOENT.
"""

from __future__ import annotations

import errno
import fcntl
import select
import struct

RECV, SEND, ID_VALID, ADDFD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
SETFD = 1  # SECCOMP_ADDFD_FLAG_SETFD: at a number of our choice
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: let the kernel do what was asked

NOTIF = struct.Struct("=QIIiIQ6Q")  # seccomp_notif: id, pid, flags; number, architecture, ip, arguments
RESP = struct.Struct("=QqiI")  # seccomp_notif_resp: id, value, error, flags
ADD = struct.Struct("=QIIII")  # seccomp_notif_addfd: id, flags, source, target, target's flags
ID = struct.Struct("=Q")


class Notice:
    """One call that stands still: thread `pid` called `number` with `arguments`."""

    def __init__(self, listener: int, raw: bytes) -> None:
        self._listener = listener
        self.id, self.pid, _, self.number, _, _, *arguments = NOTIF.unpack(raw)
        self.arguments: list[int] = arguments

    def valid(self) -> bool:
        """Whether the caller still waits; what was read of `pid` before belongs to it then."""
        try:
            fcntl.ioctl(self._listener, ID_VALID, ID.pack(self.id))
        except FileNotFoundError:
            return False
        return True

    def replace(self, target: int, source: int, flags: int) -> None:
        """Put a duplicate of our descriptor `source` in the place of the caller's `target`.

        `flags` is O_CLOEXEC or 0. Raises OSError.
        """
        fcntl.ioctl(self._listener, ADDFD, ADD.pack(self.id, SETFD, source, target, flags))

    def done(self) -> None:
        """The call returns 0, and nothing else is done."""
        self._send(0, 0)

    def refuse(self, code: int) -> None:
        """The call fails with an errno."""
        self._send(-code, 0)

    def pass_on(self) -> None:
        """The kernel does what was asked."""
        self._send(0, CONTINUE)

    def _send(self, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._listener, SEND, RESP.pack(self.id, 0, error, flags))
        except FileNotFoundError:  # killed meanwhile
            pass


class TreeGone(Exception):
    """Nobody is left in the trap, and nobody will ever be."""


def receive(listener: int) -> Notice | None:
    """The next notice, None when there is none now. Never blocks. Raises TreeGone, OSError."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    events = dict(poll.poll(0)).get(listener, 0)
    if not events & select.POLLIN:  # the ioctl would wait, and with nobody left for ever
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            raise TreeGone
        return None
    buffer = bytearray(NOTIF.size)  # the kernel insists on zeros
    try:
        fcntl.ioctl(listener, RECV, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # killed, or interrupted, between the two calls
            return None
        raise
    return Notice(listener, bytes(buffer))
