"""Where every trigger enters, whoever sent it, and becomes (part of) a sync.

At most one sync waits. A trigger that finds one waiting joins it, so a flood of pushes makes two syncs, the
one that is taken and the one that waits, and the commit announced last is the one that is looked for first.

    offer          take             finished
    ──────► pending ─────► running ──────────► ended (the last 1000 are remembered)
      ▲ │
      └─┘ offer: joins

A push that announces the very commit the newest look resolved brings no news: it is told that look's sync,
unless that failed. So a flood of one commit's pushes makes two syncs, however long it lasts.

Triggers are hints: nothing is lost by forgetting the older ones of a sync, as the truth is read from Git
after the sync was taken, which is after the last of its triggers came.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from agent.domain.control import Accepted
from agent.domain.events import Bus, SyncFinished, TriggerHeard
from agent.domain.model import SyncResult, Trigger, TriggerKind, new_id

LISTED = 50  # triggers named in one sync; all are counted
REMEMBERED = 1000  # ended syncs that can still be waited for

_WELL = (SyncResult.SUCCEEDED, SyncResult.UNCHANGED, SyncResult.PROBATION)
_HINTS = (TriggerKind.PUSH, TriggerKind.POLL, TriggerKind.ARTIFACT)


@dataclass(frozen=True, slots=True)
class PendingSync:
    """A sync as it was taken.

    `triggers` in the order in which they came, at most 50 of the `count` there were: of hints the newest are
    kept, and no number of them crowds out an operator's wish. `announced` is the commit (hex) that was
    announced last, or None.
    """

    sync: str
    triggers: tuple[Trigger, ...]
    count: int
    announced: str | None

    @property
    def by_operator(self) -> bool:
        """Whether an operator asked for it."""
        return any(trigger.kind is TriggerKind.OPERATOR for trigger in self.triggers)

    @property
    def override(self) -> str:
        """Why an operator wants to go through a freeze; "" when nobody does."""
        return next((trigger.override for trigger in self.triggers if trigger.override), "")

    @property
    def by_artifact(self) -> bool:
        """Whether something was published that may be wanted."""
        return any(trigger.kind is TriggerKind.ARTIFACT for trigger in self.triggers)


@dataclass(slots=True)
class _Waiting:
    """The sync that waits, while triggers still join it."""

    sync: str
    triggers: list[Trigger] = field(default_factory=list)
    count: int = 0
    announced: str | None = None

    def join(self, trigger: Trigger) -> None:
        self.triggers.append(trigger)
        self.count += 1
        self.announced = trigger.commit or self.announced
        if len(self.triggers) > LISTED:
            oldest_hint = next((i for i, t in enumerate(self.triggers) if t.kind in _HINTS), 0)
            del self.triggers[oldest_hint]


class TriggerInbox:
    """Merges triggers into syncs, hands them out one by one, and tells how they ended.

    Not thread-safe: to be used on one event loop. `bus` hears of every trigger.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: _Waiting | None = None
        self._arrived = asyncio.Event()  # a sync waits
        self._urgent = asyncio.Event()  # and an operator waits for it
        self._running: dict[str, PendingSync] = {}
        self._ended: OrderedDict[str, SyncFinished] = OrderedDict()
        self._ends: dict[str, asyncio.Event] = {}
        self._newest: tuple[str, str] | None = None  # the newest commit that was resolved, and its sync

    @property
    def pending(self) -> str | None:
        """The id of the sync that waits."""
        return self._waiting.sync if self._waiting else None

    @property
    def running(self) -> str | None:
        """The id of the sync that was taken last, as long as it has not ended."""
        return next(reversed(self._running), None)

    @property
    def open(self) -> list[str]:
        """The ids of all syncs that have not ended, oldest first."""
        return [*self._running, *([self._waiting.sync] if self._waiting else [])]

    def announces(self, commit: str) -> bool:
        """Whether a sync that waits or runs looks for `commit` already."""
        waiting = self._waiting is not None and self._waiting.announced == commit
        return waiting or any(sync.announced == commit for sync in self._running.values())

    def offer(self, trigger: Trigger) -> Accepted:
        """Take a trigger in; it joins the sync that waits, if there is one."""
        merged = self._waiting is not None
        waiting = self._waiting = self._waiting or _Waiting(new_id("sync"))
        waiting.join(trigger)
        self._arrived.set()
        if trigger.kind is TriggerKind.OPERATOR:
            self._urgent.set()
        verdict, reason = ("merged", "a sync waits that has not looked yet") if merged else ("accepted", "")
        self._bus.publish(TriggerHeard(trigger.kind, verdict, reason, waiting.sync, trigger.detail))
        return Accepted(waiting.sync, merged)

    async def take(self, *, not_before: float = 0.0) -> PendingSync:
        """The sync that waits, as soon as there is one; from now on it runs, until `finished`.

        Args:
            not_before: time.monotonic() before which only a sync that an operator asked for is given out;
                triggers that come until then join it.
        """
        while True:
            await self._arrived.wait()
            delay = not_before - time.monotonic()
            if delay > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._urgent.wait()
            if self._waiting is not None:  # else another taker was quicker
                return self._begin(self._waiting)

    def _begin(self, waiting: _Waiting) -> PendingSync:
        taken = PendingSync(waiting.sync, tuple(waiting.triggers), waiting.count, waiting.announced)
        self._running[taken.sync] = taken
        self._clear()
        return taken

    def _clear(self) -> None:
        self._waiting = None
        self._arrived.clear()
        self._urgent.clear()

    def resolved(self, sync: str, commit: str) -> None:
        """A look found that the followed ref names this commit."""
        self._newest = (commit, sync)

    def looked_at(self, commit: str) -> str:
        """The sync whose look resolved `commit`, if it is the newest and nothing went wrong; else ""."""
        return self._newest[1] if self._newest is not None and self._newest[0] == commit else ""

    def adopt(self, sync: str) -> None:
        """A sync that did not enter here (an operator's rollback) runs: it can be waited for like others."""
        self._running[sync] = PendingSync(sync, (), 0, None)

    def finished(self, event: SyncFinished) -> None:
        """A sync ended, taken or not: whoever waits for it is told."""
        if self.pending == event.sync:
            self._clear()
        if event.result not in _WELL and self._newest is not None and self._newest[1] == event.sync:
            self._newest = None
        self._running.pop(event.sync, None)
        self._ended[event.sync] = event
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        if end := self._ends.pop(event.sync, None):
            end.set()

    async def wait(self, sync: str, deadline: float) -> SyncFinished | None:
        """The end of a sync, also of one that ended before.

        None when `deadline` seconds passed first; at once when the sync is not known (any more).
        """
        if sync in self._running or sync == self.pending:
            end = self._ends.setdefault(sync, asyncio.Event())
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline):
                    await end.wait()
        return self._ended.get(sync)
