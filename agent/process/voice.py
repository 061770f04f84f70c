"""How a program says something of itself: that it is ready, that it lives, how it is (sd_notify(3), s6)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.domain.spec import AppSpec, ProbeKind
from agent.keeper.protocol import ChildRecord
from agent.process.keepers import Keeper

SOCKET = ".notify"  # in the program's directory
PATH_MAX = 107  # bytes, unix(7)
EXTENDED_MAX = 3600.0  # seconds by which a program can put a deadline off, all in all
HEARD = 2.0  # seconds for a program to say that it reloads


@dataclass(frozen=True, slots=True)
class Voice:
    """What it is given: the address of a socket, a descriptor, and how often it must give a sign of life."""

    notify: str = ""
    announces: bool = False
    watchdog: float = 0.0

    def variables(self, sockets: int) -> dict[str, str]:
        """The variables that tell it; `sockets` are handed over before the descriptor."""
        told = {}
        if self.notify:
            told["NOTIFY_SOCKET"] = self.notify
        if self.watchdog:
            told["WATCHDOG_USEC"] = f"{self.watchdog * 1e6:.0f}"
        if self.announces:
            told["NOTIFY_FD"] = str(3 + sockets)
        return told


SILENT = Voice()


def voice_of(spec: AppSpec, directory: Path) -> Voice:
    """What a program with this specification gets, in its directory."""
    notifies = spec.health.kind is ProbeKind.NOTIFY
    announces = notifies and spec.health.announces
    watchdog = spec.run.watchdog if spec.run is not None else 0.0
    if (announces or not notifies) and not watchdog:
        return Voice(announces=True) if announces else SILENT
    address = str(directory / SOCKET)
    if len(os.fsencode(address)) > PATH_MAX:
        address = f"@emptybox-{os.urandom(12).hex()}"
    return Voice(address, announces, watchdog)


async def until_ready(keeper: Keeper, child: str, limit: asyncio.Timeout) -> str:
    """Wait until a child says that it is ready, which may put off `limit`; its status in words.

    Raises LookupError, KeeperLost.
    """
    stretch = stretched(limit)
    record = await keeper.until(child, lambda record: stretch(record) or is_ready(record))
    return record.status


async def until_ended(keeper: Keeper, child: str, said: Callable[[], None]) -> ChildRecord:
    """Wait for a child's end; `said` is called whenever its status becomes another.

    Raises LookupError, KeeperLost.
    """
    status = ""

    def over(record: ChildRecord) -> bool:
        nonlocal status
        if record.status != status:
            status = record.status
            said()
        return not record.running

    return await keeper.until(child, over)


def is_ready(record: ChildRecord) -> bool:
    """Whether it says so, and has not said otherwise since."""
    return record.ready > 0 and not record.reloading and not record.stopping


def stretched(limit: asyncio.Timeout) -> Callable[[ChildRecord], bool]:
    """Puts a deadline off when a child asks for time (EXTEND_TIMEOUT_USEC); always False, for `until`."""
    loop = asyncio.get_running_loop()
    last = loop.time() + EXTENDED_MAX

    def stretch(record: ChildRecord) -> bool:
        asked, when = record.extended - time.time(), limit.when()
        if asked > 0 and when is not None and not limit.expired():
            limit.reschedule(max(when, min(last, loop.time() + asked)))
        return False

    return stretch


async def until_reloaded(keeper: Keeper, child: str, ready: int) -> None:
    """Wait for a child to say that it reloads, or has reloaded: it was `ready` so often before.

    One that says nothing within some seconds is taken at its earlier word. Raises LookupError, KeeperLost.
    """
    try:
        async with asyncio.timeout(HEARD):
            await keeper.until(child, lambda r: r.reloading or r.ready > ready or not r.running)
    except TimeoutError:
        return
