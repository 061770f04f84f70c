"""What is told about the journal itself: the agent's conditions JournalWritable and JournalLost."""

from __future__ import annotations

import time
from functools import partial

from agent.deploy.journal import Journal
from agent.deploy.journal_schema import Lost
from agent.deploy.layout import DataDirectory
from agent.domain.errors import FailureInfo
from agent.domain.events import Bus, ConditionChanged
from agent.domain.model import Condition, ConditionStatus


async def open_journal(data: DataDirectory, bus: Bus) -> Journal:
    """The journal of a data directory, whose troubles are told. Raises OperatorNeeded."""
    return await Journal.open(
        data.journal,
        on_error=partial(tell_writable, bus),
        on_lost=partial(tell_lost, bus),
        expected=bool(data.known_apps()),
    )


def tell_writable(bus: Bus, failure: FailureInfo | None) -> None:
    """The journal can be written to (again), or cannot."""
    status = ConditionStatus.TRUE if failure is None else ConditionStatus.FALSE
    reason, message = ("Written", "") if failure is None else (failure.reason, str(failure))
    bus.publish(ConditionChanged("", Condition("JournalWritable", status, reason, message, time.time())))


_LOST = {
    "Damaged": "the journal was damaged",
    "Newer": "the journal was written by a newer version",
    "Missing": "the journal was not there",
}


def tell_lost(bus: Bus, lost: Lost) -> None:
    """The journal could not be used; a new one was begun."""
    kept = f"; the old one is kept as {lost.aside}" if lost.aside is not None else ""
    message = f"{_LOST[lost.reason]} and a new one begun: earlier history is not in it{kept}"
    condition = Condition("JournalLost", ConditionStatus.TRUE, lost.reason, message, time.time())
    bus.publish(ConditionChanged("", condition))
