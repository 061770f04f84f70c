"""Whether the other end of a local connection was accepted by a program, not only by the kernel.

The kernel completes handshakes for a listening socket whether or not anybody calls accept(2), also while
the program that will inherit it does not run yet. The tables in /proc/net tell the two apart: a
connection in an accept queue is established and has inode 0 (proc(5)).
"""

from __future__ import annotations

import asyncio
import socket

LOOK_FIRST = 0.001  # seconds between looks: first, longest
LOOK_LONGEST = 0.05
_ESTABLISHED = "01"


async def accepted(sock: socket.socket) -> None:
    """Wait until the other end of `sock` is accepted, or closed. The caller sets the deadline."""
    ours, theirs = sock.getsockname()[1], sock.getpeername()[1]
    pause = LOOK_FIRST
    while await asyncio.to_thread(queued, theirs, ours):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LOOK_LONGEST)


def queued(server_port: int, client_port: int) -> bool:
    """Whether a connection waits in an accept queue of this machine. Blocks; False where /proc is silent."""
    local, remote = f":{server_port:04X}", f":{client_port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                for line in file:
                    if remote not in line or local not in line:
                        continue
                    columns = line.split()  # sl local remote state queues timer retransmits uid timeout inode
                    if columns[1].endswith(local) and columns[2].endswith(remote):
                        return columns[3] == _ESTABLISHED and columns[9] == "0"
        except OSError:
            continue
    return False
