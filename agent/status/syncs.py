"""What the board knows of syncs, triggers and the state repository.

The end of a sync can be told again: a release on probation is no success yet, and one that was called a
success and goes bad takes the sync's success back, along with the time of the last one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from agent.domain.events import (
    PollScheduled,
    PushMissed,
    SyncFinished,
    SyncResolved,
    SyncStarted,
    TriggerHeard,
)
from agent.domain.model import SyncResult
from agent.kit.clock import rfc3339
from agent.status.picture import Json, whole_failure_json

REMEMBERED = 64  # syncs whose result can still be told anew

_GOOD = (SyncResult.SUCCEEDED, SyncResult.UNCHANGED)


@dataclass(slots=True)
class SyncPictures:
    """The syncs, newest last, and what was heard of triggers."""

    commit: str = ""
    signer: str = ""
    running: OrderedDict[str, SyncStarted] = field(default_factory=OrderedDict)
    last: SyncFinished | None = None
    next_poll: PollScheduled | None = None
    missed_pushes: int = 0
    last_trigger: TriggerHeard | None = None
    _successes: OrderedDict[str, float] = field(default_factory=OrderedDict)

    @property
    def last_success(self) -> float:
        """When the newest sync that is still called a success ended; 0.0 when there is none."""
        return next(reversed(self._successes.values()), 0.0)

    def trigger(self, event: TriggerHeard) -> None:
        """A trigger came."""
        self.last_trigger = event

    def scheduled(self, event: PollScheduled) -> None:
        """The next poll is known."""
        self.next_poll = event

    def missed(self, _event: PushMissed) -> None:
        """A push came without a webhook."""
        self.missed_pushes += 1

    def started(self, event: SyncStarted) -> None:
        """A sync begins."""
        _remember(self.running, event.sync, event)

    def resolved(self, event: SyncResolved) -> None:
        """The commit is known."""
        self.commit, self.signer = event.commit, event.signer

    def finished(self, event: SyncFinished) -> None:
        """A sync ended, or a sync that ended before is judged anew."""
        self.running.pop(event.sync, None)
        if event.result in _GOOD:
            if event.sync not in self._successes:
                _remember(self._successes, event.sync, event.at)
        else:
            self._successes.pop(event.sync, None)
        if self.last is None or event.sync >= self.last.sync:  # ids sort by time
            self.last = event
            self.commit = event.commit or self.commit

    def as_json(self, now: float) -> Json:
        """The members of `source` in /status that come from facts."""
        return {
            "commit": self.commit or None,
            "signer": self.signer or None,
            "running": [
                {
                    "id": s.sync,
                    "kinds": [str(k) for k in s.kinds],
                    "started": rfc3339(s.at),
                    "seconds": round(max(0.0, now - s.at), 4),
                }
                for s in self.running.values()
            ],
            "last_sync": _finished_json(self.last),
            "last_success": rfc3339(self.last_success) or None,
            "next_poll": None if self.next_poll is None else rfc3339(self.next_poll.due),
            "next_poll_reason": None if self.next_poll is None else self.next_poll.reason,
            "missed_pushes": self.missed_pushes,
            "last_trigger": _trigger_json(self.last_trigger),
        }


def _finished_json(event: SyncFinished | None) -> Json | None:
    if event is None:
        return None
    return {
        "id": event.sync,
        "result": str(event.result),
        "commit": event.commit or None,
        "at": rfc3339(event.at),
        "seconds": round(event.seconds, 4),
        "failure": None if event.failure is None else whole_failure_json(event.failure),
    }


def _trigger_json(event: TriggerHeard | None) -> Json | None:
    if event is None:
        return None
    return {
        "kind": str(event.kind),
        "verdict": event.verdict,
        "reason": event.reason,
        "detail": event.detail,
        "sync": event.sync or None,
        "at": rfc3339(event.at),
    }


def _remember(record: OrderedDict[str, Any], key: str, value: Any) -> None:
    record[key] = value
    while len(record) > REMEMBERED:
        record.popitem(last=False)
