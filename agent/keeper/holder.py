"""Who listens on a port: for the error that says so. Linux, from /proc (proc(5))."""

from __future__ import annotations

import os

SCANNED_MAX = 20_000  # descriptors looked at before giving up: this only makes a message better
_LISTEN = "0A"


def find_holder(port: int) -> tuple[int | None, str]:
    """Pid and name of a process that listens on a TCP port; (None, "") when it cannot be found. Blocks."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    left = SCANNED_MAX
    for pid in sorted((int(name) for name in _list("/proc") if name.isdigit()), reverse=True):
        if pid == os.getpid():
            continue
        for fd in _list(f"/proc/{pid}/fd"):
            left -= 1
            if left < 0 or not wanted:
                return None, ""
            try:
                found = os.readlink(f"/proc/{pid}/fd/{fd}") in wanted
            except OSError:
                continue
            if found:
                return pid, _name(pid)
    return None, ""


def _inodes(port: int) -> set[str]:
    """Inodes of the listening sockets, from the columns sl local_address rem_address st ... inode."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                for line in file:
                    columns = line.split()
                    if columns[3] == _LISTEN and columns[1].endswith(f":{port:04X}"):
                        found.add(columns[9])
        except OSError:
            continue
    return found


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
