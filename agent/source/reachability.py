"""The agent's condition SourceReachable: whether the state repository can be looked at.

Whoever looks tells the outcome; the fact is published when it changes, with the time since which it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.domain.errors import FailureInfo
from agent.domain.events import Bus, ConditionChanged
from agent.domain.model import Condition, ConditionStatus

TYPE = "SourceReachable"


class Reachability:
    """Keeps the condition. `clock` gives seconds since the epoch."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._told: Condition | None = None

    def reached(self) -> None:
        """A look succeeded."""
        self._tell(ConditionStatus.TRUE, "Reachable", "")

    def failed(self, failure: FailureInfo) -> None:
        """A look failed."""
        self._tell(ConditionStatus.FALSE, failure.reason, str(failure))

    def _tell(self, status: ConditionStatus, reason: str, message: str) -> None:
        told = self._told
        if told and (told.status, told.reason, told.message) == (status, reason, message):
            return
        since = told.since if told and told.status == status else self._clock()
        self._told = Condition(TYPE, status, reason, message, since)
        self._bus.publish(ConditionChanged("", self._told))
