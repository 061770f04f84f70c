"""Namespaces (namespaces(7)) a child is started in, and what is mounted there for it alone.

Who is not root makes a user namespace beside them, in which it has the rights to do so, and is itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct

from agent.keeper.confine import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

FLAGS = {"mount": 0x00020000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
CLONE = {"x86_64": 56, "aarch64": 220}
BIND, REC, SLAVE, REMOUNT = 1 << 12, 1 << 14, 1 << 19, 1 << 5
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
SAME_FLAGS = NO_SETUID | NO_DEVICES | NO_EXECUTION | os.ST_NOATIME | os.ST_NODIRATIME
RELATIVE_TIME = 1 << 21
TEMPORARY = "mode=1777,size=10%,nr_inodes=400k"
TMP = ("/tmp", "/var/tmp")  # noqa: S108 - the places themselves are meant
NODES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_SET_FLAGS, _UP = 0x8914, 0x41  # SIOCSIFFLAGS; IFF_UP | IFF_RUNNING


def flags(names: Collection[str]) -> int:
    """What clone(2) is told for these namespaces. Raises KeyError."""
    return sum(FLAGS[name] for name in set(names))


def fork(wanted: int) -> int:
    """Fork into new namespaces, with all that Python does around it. Raises OSError."""
    if not wanted:
        return os.fork()
    python = ctypes.pythonapi
    with_lock = ctypes.PyDLL(None, use_errno=True).syscall  # never lets another thread's state in
    with_lock.restype = ctypes.c_long
    number = ctypes.c_long(CLONE[system.machine()])
    rest = [ctypes.c_ulong(0)] * 4
    python.PyOS_BeforeFork()
    pid: int = with_lock(number, ctypes.c_ulong(wanted | signal.SIGCHLD), *rest)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, os.strerror(code))
    return pid


def furnish(
    names: Collection[str], private: Iterable[str], keep: Iterable[tuple[str, bool]], ids: tuple[int, int],
    *, root: bool = False,
) -> None:  # fmt: skip
    """In the new namespaces: who one is, and what is mounted. Raises OSError.

    Args:
        names: the namespaces.
        private: `tmp`, `dev`: what is its own and empty.
        keep: directories that stay where they are when a private one is put over them; whether writable.
        ids: uid and gid outside, to be the same inside a user namespace; or 0, for its `root`.
    """
    if "user" in names:
        uid, gid = (0, 0) if root else ids
        for file, text in (
            ("setgroups", "deny"), ("uid_map", f"{uid} {ids[0]} 1"), ("gid_map", f"{gid} {ids[1]} 1"),
        ):  # fmt: skip
            write(f"/proc/self/{file}", text)
    if "net" in names:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
    if "mount" not in names:
        return
    system.mount("none", "/", "", REC | SLAVE)
    places = {"tmp": _tmp, "dev": _dev}
    for what in private:
        places[what](keep)
    if "pid" in names:
        system.mount("proc", "/proc", "proc", NO_SETUID | NO_DEVICES | NO_EXECUTION)


def enter(pid: int, names: Collection[str]) -> None:
    """Go into namespaces of another process (setns(2)); of PIDs only who is forked later. Raises OSError."""
    order = [name for name in ("user", "ipc", "net", "pid", "mount") if name in names]
    files = {"mount": "mnt"}
    held = [os.open(f"/proc/{pid}/ns/{files.get(name, name)}", os.O_RDONLY | os.O_CLOEXEC) for name in order]
    for name, fd in zip(order, held, strict=True):
        system.check(system.libc.setns(fd, FLAGS[name]))
        os.close(fd)


def write(path: str, text: str) -> None:
    """Write a file of the kernel's, in one call. Raises OSError with its path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({path})") from None
    finally:
        os.close(fd)


def _tmp(keep: Iterable[tuple[str, bool]]) -> None:
    tops = tuple(f"{top}/" for top in TMP)
    held = [
        (path, writable, os.open(path, os.O_PATH | os.O_CLOEXEC))
        for path, writable in keep
        if os.path.realpath(path).startswith(tops)
    ]
    system.mount("tmpfs", TMP[0], "tmpfs", NO_SETUID | NO_DEVICES, TEMPORARY)
    if os.path.isdir(TMP[1]):
        system.mount(TMP[0], TMP[1], "", BIND)
    for path, writable, fd in held:
        os.makedirs(path, 0o755, exist_ok=True)
        system.mount(f"/proc/self/fd/{fd}", path, "", BIND | REC)
        os.close(fd)
        if not writable:
            has = os.statvfs(path).f_flag  # nobody in a user namespace may take these away
            same = has & SAME_FLAGS | (RELATIVE_TIME if has & os.ST_RELATIME else 0)
            system.mount("none", path, "", BIND | REMOUNT | READ_ONLY | same)


def _dev(_keep: Iterable[tuple[str, bool]]) -> None:
    nodes = {}
    for name in NODES:
        with contextlib.suppress(FileNotFoundError):
            nodes[name] = os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC)
    system.mount("tmpfs", "/dev", "tmpfs", NO_SETUID | NO_EXECUTION, "mode=755,size=64k,nr_inodes=64")
    for name, fd in nodes.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        system.mount(f"/proc/self/fd/{fd}", f"/dev/{name}", "", BIND)
        os.close(fd)
    for name, target in LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("shm", "pts"):
        os.mkdir(f"/dev/{name}", 0o755)
    system.mount("tmpfs", "/dev/shm", "tmpfs", NO_SETUID | NO_DEVICES, TEMPORARY)  # noqa: S108
    with contextlib.suppress(OSError):  # pseudo-terminals are a convenience
        system.mount("devpts", "/dev/pts", "devpts", NO_SETUID | NO_EXECUTION, "newinstance,ptmxmode=0666")
    system.mount("none", "/dev", "", REMOUNT | READ_ONLY | NO_SETUID | NO_EXECUTION)


def wanted(order: Mapping[str, Any]) -> list[str]:
    """The namespaces of an order's confinement."""
    return list((order.get("confine") or {}).get("namespaces", ()))
