"""Waits for what is still on its way to an old child: nothing that was let in may get lost.

After the flip three kinds of connection still belong to the old slot: those in its accept queue, those
whose handshake was under way (SYN_RECV: they land on the slot that was chosen at their SYN), and those
the old child has accepted. The first two are waited for always, the last where the app asks for it
(`drain.connections`). A client of a SYN flood looks like one under way: the deadline is the end of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from agent.traffic.inet_diag import TcpSocket
from agent.traffic.sockets import LISTEN, SYN_RECV, established, tcp_sockets

log = logging.getLogger(__name__)

QUIET_READS = 3  # reads of an empty queue in a row before it is believed
PAUSE = 0.005  # seconds between two reads of a queue
SLOW_PAUSE = 0.05  # seconds between two reads of /proc, once waiting has taken a while


def handshakes(ports: Collection[int]) -> frozenset[TcpSocket]:
    """Handshakes under way on local `ports`. Blocks: call it in a thread."""
    return frozenset(tcp_sockets(ports, (SYN_RECV,)))


async def queues_empty(waiting: Callable[[], int], ports: Collection[int], deadline: float) -> bool:
    """Wait until no handshake that is under way now is left, and then nobody waits; False at the deadline.

    Args:
        waiting: length of the accept queues.
        ports: local ports on which handshakes count.
        deadline: seconds.
    """
    try:
        async with asyncio.timeout(deadline):
            begun = left = await asyncio.to_thread(handshakes, ports)
            pause = PAUSE
            while left:
                await asyncio.sleep(pause)
                pause = min(2 * pause, SLOW_PAUSE)
                left = begun & await asyncio.to_thread(handshakes, ports)
            quiet = 0
            while quiet < QUIET_READS:
                quiet = 0 if waiting() else quiet + 1
                if quiet < QUIET_READS:
                    await asyncio.sleep(PAUSE)
    except TimeoutError:
        return False
    return True


async def backlogs_empty(ports: Collection[int]) -> None:
    """Wait until nobody waits in the accept queue of whoever listens on local `ports`."""
    quiet = 0
    while quiet < QUIET_READS:
        listeners = await asyncio.to_thread(tcp_sockets, ports, (LISTEN,))
        quiet = 0 if any(listener.waiting for listener in listeners) else quiet + 1
        if quiet < QUIET_READS:
            await asyncio.sleep(PAUSE)


async def connections_gone(pid: int, ports: Collection[int], deadline: float) -> bool:
    """Wait until the process tree of `pid` has no open connection on `ports`; False at the deadline.

    Where the kernel does not let us see (a child under another user, without CAP_SYS_PTRACE) there
    may always be one left, so the whole deadline is given.
    """
    try:
        async with asyncio.timeout(deadline):
            while await _established(pid, ports):  # noqa: ASYNC110 (the kernel tells nobody)
                await asyncio.sleep(SLOW_PAUSE)
    except TimeoutError:
        return False
    return True


async def _established(pid: int, ports: Collection[int]) -> int:
    try:
        return await asyncio.to_thread(established, pid, ports)
    except PermissionError:
        log.debug("connections of pid %d cannot be seen", pid)
        return 1
