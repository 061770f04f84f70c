"""Whether webhooks work, judged by what polling finds, and how often to poll because of it.

    unproven ──a push was heard──► working ◄──a push was heard── missing
       │                              │                             ▲
       └──────────a push was missed───┴─────────────────────────────┘

| state | polls | |
|---|---|---|
| (none configured) | every interval | polling is all there is |
| unproven | every interval | nobody pushed since the start |
| working | every ten intervals, at most ten minutes, unless the interval is longer | a safety net |
| missing | four times an interval, at least a second apart | until webhooks work again |

A push was missed when polling found a commit and no webhook announced it within a grace after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from agent.domain.events import Bus, ConditionChanged, PushMissed
from agent.domain.model import Condition, ConditionStatus

TYPE = "WebhooksWorking"
GRACE = 10.0  # seconds a webhook may come later than the poll that found its commit
RARE, RAREST = 10.0, 600.0  # intervals between two polls while webhooks work; seconds at most
OFTEN, CLOSEST = 4.0, 1.0  # polls in an interval while they do not; seconds between two at least


class Announcements(Protocol):
    """What webhooks have told."""

    @property
    def pushes(self) -> int:
        """How many pushes to what is followed were heard."""

    def announced(self, commit: str) -> bool:
        """Whether one of them announced this commit."""


class Hooks(StrEnum):
    """What is known about webhooks."""

    UNPROVEN = "unproven"
    WORKING = "working"
    MISSING = "missing"


class HooksWatch:
    """Keeps the state and the condition.

    Args:
        bus: hears of missed pushes, and when the condition changes.
        heard: what webhooks have told; None where none is configured.
        interval: seconds between two polls without webhooks.
        clock: seconds since the epoch.
    """

    def __init__(
        self, bus: Bus, heard: Announcements | None, interval: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._heard = heard
        self._interval = interval
        self._clock = clock
        self._pushes = 0
        self._suspects: dict[str, float] = {}  # commit: when polling found it unannounced
        self.state = Hooks.UNPROVEN

    def found(self, commit: str) -> None:
        """Polling found a new commit; whether it was missed is judged later, for the webhook may be slow."""
        if self._heard is not None and not self._heard.announced(commit):
            self._suspects.setdefault(commit, self._clock())

    def judge(self) -> None:
        """Look at what came meanwhile. Called with each poll that succeeded."""
        if self._heard is None:
            return
        if self._heard.pushes > self._pushes:
            self._pushes = self._heard.pushes
            self._enter(Hooks.WORKING, "PushHeard", "")
        latest = self._clock() - min(GRACE, self._interval)
        for commit in [c for c, found in self._suspects.items() if found <= latest]:
            del self._suspects[commit]
            if not self._heard.announced(commit):
                self._bus.publish(PushMissed(commit, again=self.state is Hooks.MISSING))
                told = f"polling found {commit[:12]}, which no webhook announced; polling goes faster"
                self._enter(Hooks.MISSING, "PushMissed", told)

    def rest(self) -> tuple[float, str]:
        """Seconds until the next poll, and why then."""
        if self._suspects and self._heard is not None:
            return min(self._interval, GRACE), "to see whether a webhook comes"
        if self._heard is None or self.state is Hooks.UNPROVEN:
            return self._interval, "the interval"
        if self.state is Hooks.WORKING:
            seconds = max(self._interval, min(RARE * self._interval, RAREST))
            return seconds, "webhooks work: polling is rare"
        seconds = min(self._interval, max(self._interval / OFTEN, CLOSEST))
        return seconds, "webhooks are missing: polling is faster"

    def _enter(self, state: Hooks, reason: str, message: str) -> None:
        if state is self.state:
            return
        self.state = state
        status = ConditionStatus.TRUE if state is Hooks.WORKING else ConditionStatus.FALSE
        self._bus.publish(ConditionChanged("", Condition(TYPE, status, reason, message, self._clock())))
