"""What can be seen of another process: an address in its memory, a descriptor of its (proc(5)).

The kernel lets us look at processes of our own user (ptrace(2), access mode checking), and, where Yama
restricts that, at descendants. Root without CAP_SYS_PTRACE, as in a container, sees only root's: it looks
at another user's with that user's filesystem ids (setfsuid(2)), which count for this check.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

ADDRESS_MAX = 128  # struct sockaddr_storage
FDINFO_MAX = 1 << 16
STREAMS = {"TCP", "TCPv6", "MPTCP", "MPTCPv6"}
_MAPPED = bytes(10) + b"\xff\xff"  # IPv4 in IPv6 (RFC 4291, 2.5.5.2)
_libc = ctypes.CDLL(None)


def address(pid: int, place: int, length: int) -> tuple[str, int] | None:
    """Host and port of a struct sockaddr in the memory of a thread; None when it is not of IP.

    IPv4 in IPv6 is told as IPv4. Raises OSError.
    """
    raw = _as_its_user(pid, lambda: _memory(pid, place, min(length, ADDRESS_MAX)))
    family = int.from_bytes(raw[:2], "little")  # both machines `trap` knows are little-endian
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    if family == socket.AF_INET6 and len(raw) >= 24:
        if raw[8:20] == _MAPPED:
            return socket.inet_ntop(socket.AF_INET, raw[20:24]), port
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port
    return None


def is_stream(pid: int, fd: int) -> bool:
    """Whether a descriptor of a thread is a TCP socket. Raises OSError."""
    path = f"/proc/{pid}/fd/{fd}"
    try:
        name = _as_its_user(pid, lambda: os.getxattr(path, "system.sockprotoname"))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):  # no socket
            return False
        raise
    return name.rstrip(b"\0").decode() in STREAMS


def same_file(pid: int, fd: int, other: int) -> bool:
    """Whether a descriptor of a thread and one of ours are the same socket. Raises OSError."""
    path = f"/proc/{pid}/fd/{fd}"
    theirs, ours = _as_its_user(pid, lambda: os.stat(path)), os.fstat(other)
    return (theirs.st_ino, theirs.st_dev) == (ours.st_ino, ours.st_dev)


def open_files(pid: int) -> set[tuple[int, int]]:
    """Inode and device of all that a process has open. Raises OSError."""
    return _as_its_user(pid, lambda: set(_files(f"/proc/{pid}/fd")))


def _files(directory: str) -> Iterator[tuple[int, int]]:
    for name in os.listdir(directory):
        try:
            found = os.stat(f"{directory}/{name}")
        except FileNotFoundError:  # closed meanwhile
            continue
        yield found.st_ino, found.st_dev


def is_polled(pid: int, fd: int) -> bool:
    """Whether a thread's descriptor is in one of its epoll(7) sets. Raises OSError."""
    wanted = b"tfd: %8d " % fd
    return _as_its_user(pid, lambda: any(wanted in text for text in _epoll_sets(pid)))


def _epoll_sets(pid: int) -> Iterator[bytes]:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[eventpoll]":
                yield _read(f"/proc/{pid}/fdinfo/{name}", FDINFO_MAX, 0)
        except FileNotFoundError:  # closed meanwhile
            continue


def open_flags(pid: int, fd: int) -> int:
    """O_NONBLOCK, O_CLOEXEC and their like of a descriptor of a thread. Raises OSError."""
    path = f"/proc/{pid}/fdinfo/{fd}"
    for line in _as_its_user(pid, lambda: _read(path, 4096, 0)).splitlines():
        if line.startswith(b"flags:"):
            return int(line.split()[1], 8)
    raise OSError(errno.EPROTO, "fdinfo tells no flags")


def _memory(pid: int, place: int, length: int) -> bytes:
    if place > 0x7FFF_FFFF_FFFF_FFFF:  # no address of a program, and no offset of a file
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return _read(f"/proc/{pid}/mem", length, place)


def _read(path: str, length: int, place: int) -> bytes:
    """Bare calls only: another user may not be able to read what Python would import for more."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, length, place)
    finally:
        os.close(fd)


def _as_its_user(pid: int, look: Callable[[], T]) -> T:
    """Look, with the process's filesystem ids if our own do not do. Raises OSError."""
    try:
        return look()
    except PermissionError:
        owner = os.stat(f"/proc/{pid}")
        if os.geteuid() != 0 or owner.st_uid == 0:
            raise
    gid, uid = _libc.setfsgid(owner.st_gid), _libc.setfsuid(owner.st_uid)
    try:
        return look()
    finally:
        _libc.setfsuid(uid)
        _libc.setfsgid(gid)
