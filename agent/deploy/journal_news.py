"""What is told about the journal itself: the agent's conditions JournalWritable and JournalLost."""

from __future__ import annotations

import time
from pathlib import Path

from agent.domain.errors import FailureInfo
from agent.domain.events import Bus, ConditionChanged
from agent.domain.model import Condition, ConditionStatus


def tell_writable(bus: Bus, failure: FailureInfo | None) -> None:
    """The journal can be written to (again), or cannot."""
    status = ConditionStatus.TRUE if failure is None else ConditionStatus.FALSE
    reason, message = ("Written", "") if failure is None else (failure.reason, str(failure))
    bus.publish(ConditionChanged("", Condition("JournalWritable", status, reason, message, time.time())))


def tell_lost(bus: Bus, moved_to: Path) -> None:
    """The journal was damaged; a new one was begun."""
    message = f"the journal was damaged and a new one begun; the old one is kept as {moved_to}"
    condition = Condition("JournalLost", ConditionStatus.TRUE, "Damaged", message, time.time())
    bus.publish(ConditionChanged("", condition))
