"""Keeps the freeze windows of the newest state: tells when one begins and ends, and looks again then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent.domain.events import Bus, ConditionChanged
from agent.domain.freeze import FreezeSpec, Frozen, frozen, next_change
from agent.domain.model import Condition, ConditionStatus, Trigger, TriggerKind
from agent.source.inbox import TriggerInbox

TYPE = "Frozen"
LONGEST_WAIT = 3600.0  # seconds: the wall clock may be set meanwhile
MARGIN = 0.5  # seconds after a window's end that it is looked again


class Freezer:
    """See the module. `clock` gives seconds since the epoch."""

    def __init__(self, inbox: TriggerInbox, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._inbox = inbox
        self._bus = bus
        self._clock = clock
        self._windows: tuple[FreezeSpec, ...] = ()
        self._told: Frozen | None = None
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, windows: tuple[FreezeSpec, ...]) -> None:
        """These hold from now on."""
        self._windows = windows
        self._look()

    def now(self) -> Frozen | None:
        """The window that is now."""
        return frozen(self._windows, self._clock()) if self._windows else None

    def close(self) -> None:
        """The agent ends."""
        self._windows = ()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self.now()
        if now != self._told:
            self._tell(now)
            if now is None:
                self._inbox.offer(Trigger(TriggerKind.SCHEDULE, detail="a freeze ended"))
            self._told = now
        if not self._windows:
            return
        due = next_change(self._windows, self._clock())
        wait = LONGEST_WAIT if due is None else max(0.0, due - self._clock()) + MARGIN
        self._timer = asyncio.get_running_loop().call_later(min(wait, LONGEST_WAIT), self._look)

    def _tell(self, now: Frozen | None) -> None:
        status = ConditionStatus.FALSE if now is None else ConditionStatus.TRUE
        reason = "FreezeEnded" if now is None else "FreezeWindow"
        condition = Condition(TYPE, status, reason, "" if now is None else str(now), self._clock())
        self._bus.publish(ConditionChanged("", condition))
