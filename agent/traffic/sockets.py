"""What the kernel tells about TCP sockets and their owners (proc_pid_net(5), proc_pid_fd(5)).

Everything here blocks, for a host may have 100,000 sockets: call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

ESTABLISHED = "01"
SYN_RECV = "03"
CLOSE_WAIT = "08"
LISTEN = "0A"

_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One line of /proc/net/tcp or tcp6: addresses in the kernel's own hex, `address:port`."""

    local: str
    remote: str
    state: str
    inode: int


def tcp_sockets(ports: Collection[int], states: Collection[str]) -> Iterator[TcpSocket]:
    """The sockets of this network namespace on local `ports` in `states`."""
    wanted = {f"{port:04X}" for port in ports}
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii") as lines:
                next(lines, None)  # the heading
                for line in lines:
                    _, local, remote, state, rest = line.split(None, 4)
                    if state in states and local[-4:] in wanted:
                        yield TcpSocket(local, remote, state, int(rest.split(None, 6)[5]))
        except FileNotFoundError:
            continue


def process_tree(root: int) -> set[int]:
    """`root`, its descendants, and whoever is still in its process group or session."""
    parents: dict[int, int] = {}
    tree = {root}
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The command in parentheses may hold anything, parentheses included: count from its end.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # ended meanwhile
            continue
        parents[pid] = int(fields[1])
        if root in (int(fields[2]), int(fields[3])):
            tree.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= children
        grown = bool(children)
    return tree


def socket_inodes(pid: int) -> set[int]:
    """Inodes of the sockets a process has open; none when it has ended. Raises PermissionError."""
    inodes: set[int] = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    match = _SOCKET_LINK.fullmatch(os.readlink(entry.path))
                except FileNotFoundError:
                    continue
                if match:
                    inodes.add(int(match[1]))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return inodes


def established(root: int, ports: Collection[int]) -> int:
    """Connections on local `ports` that the process tree of `root` has open. Raises PermissionError."""
    owned: set[int] = set()
    for pid in process_tree(root):
        owned |= socket_inodes(pid)
    open_states = (ESTABLISHED, CLOSE_WAIT)
    return sum(sock.inode in owned for sock in tcp_sockets(ports, open_states)) if owned else 0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port. Its arguments are left out: they may hold secrets."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"


def listeners(port: int) -> list[Holder]:
    """Who listens on a port of this network namespace, as far as this process may see."""
    inodes = {sock.inode for sock in tcp_sockets([port], [LISTEN])}
    found: list[Holder] = []
    for pid in _pids() if inodes else ():
        try:
            if inodes & socket_inodes(pid):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    found.append(Holder(pid, file.read().strip()))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
