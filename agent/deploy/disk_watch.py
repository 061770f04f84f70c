"""Whether the data directory's disk answers: asked now and then, by a small write that is waited for.

A disk whose server is gone gives no errors: who writes waits, maybe for hours. So the question is asked in a
thread of its own, and no second one while the first is open. It is asked a while after anything happened,
for that is when something is to be written, and once a minute when nothing does.

    answers --no answer for PATIENCE--> silent: told, and no deadline counts --answer--> answers
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.events import Bus, ConditionChanged, Event
from agent.domain.model import Condition, ConditionStatus
from agent.kit.clock import rfc3339
from agent.kit.standstill import Standstill
from agent.source.poller import rest_until

log = logging.getLogger(__name__)

SOON = 5.0  # seconds after something happened
REST = 60.0  # seconds between two questions while nothing does
PATIENCE = 15.0  # seconds: a disk that is busy may well take some of them


class DiskWatch:
    """Of the disk that `where` lies on. `ask` writes there and waits, in a thread.

    What happens is heard on the bus, and the condition DiskAnswers told there; `standstill` is kept.
    """

    def __init__(self, where: Path, ask: Callable[[], None], bus: Bus, standstill: Standstill) -> None:
        self._where = where
        self._ask = ask
        self._bus = bus
        self._standstill = standstill
        self._stirred = asyncio.Event()
        self._told: bool | None = None

    async def watch(self) -> NoReturn:
        """Ask again and again."""
        unsubscribe = self._bus.subscribe(self._hear)
        try:
            while True:
                await rest_until(self._stirred, REST)
                await asyncio.sleep(SOON)
                self._stirred.clear()
                await self._look()
        finally:
            unsubscribe()

    def _hear(self, event: Event) -> None:
        if not isinstance(event, ConditionChanged):
            self._stirred.set()

    async def _look(self) -> None:
        loop, began, at = asyncio.get_running_loop(), time.monotonic(), time.time()
        answered = asyncio.Event()

        def ask() -> None:
            self._ask()
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop has ended
                log.debug("the disk answered after the end")

        try:
            threading.Thread(target=ask, name="disk", daemon=True).start()
        except RuntimeError as error:
            log.debug("the disk is not asked: %s", error)
            return
        await rest_until(answered, PATIENCE)
        if not answered.is_set():
            self._standstill.begins(time.monotonic() - began)
            self._tell(at)
            await answered.wait()
            self._standstill.ends()
            log.warning("%s answers again, after %.0f s", self._where, time.monotonic() - began)
        if self._told is not True:
            self._told = True
            condition = Condition("DiskAnswers", ConditionStatus.TRUE, "Answered", "", time.time())
            self._bus.publish(ConditionChanged("", condition))

    def _tell(self, since: float) -> None:
        self._told = False
        failure = FailureInfo(
            FailureKind.OPERATOR,
            "DiskSilent",
            f"a write has not come to its end since {rfc3339(since)}; what serves goes on, and all that has "
            "to be written waits",
            where=str(self._where),
            remedy="look at the disk, or at the server of the volume; all goes on by itself once it answers",
        )
        log.error("%s", failure)
        condition = Condition("DiskAnswers", ConditionStatus.FALSE, "DiskSilent", str(failure), since)
        self._bus.publish(ConditionChanged("", condition))
