"""What a child says of itself: sd_notify(3), or a newline on a descriptor as s6 knows it.

One datagram socket a child, NOTIFY_SOCKET in its environment. Of each datagram the kernel says who sent it
(SO_PASSCRED, unix(7)); what does not come from the child's own tree is not heard. Understood are READY,
RELOADING, STOPPING, STATUS, MAINPID, WATCHDOG, WATCHDOG_USEC and EXTEND_TIMEOUT_USEC; descriptors sent
along are closed, which is what BARRIER=1 waits for.

The watchdog is the keeper's to keep, so that it also counts while there is no agent:

    off --READY=1, or the first WATCHDOG=1--> armed --none for so long, or WATCHDOG=trigger--> silent

A silent child is ended by ABRT, and some seconds later by KILL.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATAGRAM_MAX = 4096
STATUS_MAX = 256  # characters
ANCESTORS_MAX = 64
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Notices:
    """One child's. `watchdog` is how long it may say nothing, in seconds; 0: for ever."""

    def __init__(self, address: str, watchdog: float) -> None:
        """Listen at an address, a path or a name with @ before it, or "" nowhere. Raises OSError."""
        self.ready = 0  # how often it said so
        self.reloading = self.stopping = self.silent = False
        self.status = ""
        self.extended = 0.0  # until when it asked for time, in epoch seconds
        self.main = 0
        self.watchdog = watchdog
        self.heard = 0.0  # the last sign of life; 0 while the watchdog is off
        self._path = "" if address.startswith("@") else address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if address:
                self._sock.bind(self._path or "\0" + address[1:])
            if self._path:
                os.chmod(self._path, 0o666)  # noqa: S103 - the sender is asked for, whoever it is
        except OSError:
            self.close()
            raise

    @property
    def fd(self) -> int:
        """To wait for; -1 when it is closed."""
        return self._sock.fileno()

    def hear(self, child: int, session: int) -> bool:
        """Take one datagram, if one waits; whether it changed anything that is told."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * 253)
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(DATAGRAM_MAX, room, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        sender = 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                sender, _, _ = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                _close(payload)
        if flags & socket.MSG_TRUNC or not belongs(sender, child, session):
            return False
        before = self.told()
        for line in data.decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            self._take(name, value, child, session)
        return self.told() != before

    def _take(self, name: str, value: str, child: int, session: int) -> None:
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else -1
        if name == "READY" and value == "1":
            self.said_ready()
        elif name == "RELOADING" and value == "1":
            self.reloading = True
        elif name == "STOPPING" and value == "1":
            self.stopping = True
        elif name == "STATUS":
            self.status = value[:STATUS_MAX]
        elif name == "MAINPID" and number > 1 and belongs(number, child, session):
            self.main = number
        elif name == "WATCHDOG" and value == "trigger":
            self.heard = -1.0
        elif name == "WATCHDOG" and value == "1" and self.heard >= 0:
            self.heard = time.monotonic()
        elif name == "WATCHDOG_USEC" and number > 0 and self.watchdog:
            self.watchdog = number / 1e6
        elif name == "EXTEND_TIMEOUT_USEC" and number > 0:
            self.extended = time.time() + number / 1e6

    def said_ready(self) -> None:
        """It is ready, or is again."""
        self.ready += 1
        self.reloading = False
        self.heard = self.heard or time.monotonic()

    def overdue(self) -> float:
        """Seconds until it counts as silent, 0 or less when it does; inf while the watchdog is off."""
        if not self.watchdog or not self.heard:
            return float("inf")
        return self.heard + self.watchdog - time.monotonic() if self.heard > 0 else 0.0

    def told(self) -> dict[str, Any]:
        """What the agent hears of it, as fields of a `ChildRecord`."""
        return {
            "ready": self.ready,
            "reloading": self.reloading,
            "stopping": self.stopping,
            "silent": self.silent,
            "status": self.status,
            "extended": self.extended,
        }

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def belongs(pid: int, child: int, session: int) -> bool:
    """Whether a process is of a child's tree: of its session, or one of its descendants (proc(5))."""
    for _ in range(ANCESTORS_MAX):
        if pid <= 1:
            return False
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read(1024).rpartition(b")")[2].split()
        except OSError:
            return False
        if pid == child or int(fields[3]) == session:
            return True
        pid = int(fields[1])
    return False


def _close(payload: bytes) -> None:
    for (fd,) in struct.iter_unpack("=i", payload[: len(payload) - len(payload) % 4]):
        with contextlib.suppress(OSError):
            os.close(fd)
