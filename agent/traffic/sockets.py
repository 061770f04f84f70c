"""What the kernel tells about TCP sockets and their owners (sock_diag(7), proc_pid_net(5), proc_pid_fd(5)).

Everything here blocks, for a host may have 100,000 sockets: call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from agent.traffic.inet_diag import TcpSocket, dump

ESTABLISHED = 1
SYN_RECV = 3
CLOSE_WAIT = 8
LISTEN = 10

_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


def tcp_sockets(ports: Collection[int], states: Collection[int]) -> list[TcpSocket]:
    """The sockets of this network namespace on local `ports` in `states`, IPv4 and IPv6."""
    try:
        return list(dump(ports, states))
    except OSError:  # an old kernel, or a sandbox without netlink
        return list(proc_sockets(ports, states))


def proc_sockets(ports: Collection[int], states: Collection[int]) -> Iterator[TcpSocket]:
    """The same from /proc/net/tcp and tcp6: everywhere to be had, and slow on a busy host."""
    wanted_ports = {f"{port:04X}" for port in ports}
    wanted_states = {f"{state:02X}" for state in states}
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii") as lines:
                next(lines, None)  # the heading
                for line in lines:
                    _, local, remote, state, rest = line.split(None, 4)
                    if state in wanted_states and local[-4:] in wanted_ports:
                        queues, *_, inode = rest.split(None, 6)[:6]
                        yield TcpSocket(
                            _address(local), _address(remote), int(state, 16), int(inode),
                            int(queues.partition(":")[2], 16),
                        )  # fmt: skip
        except FileNotFoundError:
            continue


def _address(text: str) -> tuple[bytes, int]:
    """`0100007F:1F90`: words of 32 bits in the machine's own byte order, and the port."""
    words, _, port = text.partition(":")
    address = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)
    )
    return address, int(port, 16)


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
