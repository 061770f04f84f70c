"""The words for runs of jobs: why one began, how it ended, and the record that is kept of it.

waiting --started--> running --exit code 0--> succeeded
   ^                    +--failed, attempts left--> waiting (for the next attempt)
   |                    +--failed, none left--> failed
   |                    +--the keeper ended with it--> interrupted, or waiting while attempts are left
   |                    +--stopped with the agent, with its app, or by an operator--> stopped
asked for, due, released
   +--due while nobody was there--> missed
   +--due while another run was under way--> skipped
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.domain.errors import FailureInfo
from agent.kit.clock import rfc3339
from agent.kit.mask import secrets


class Cause(StrEnum):
    """Why there is a run."""

    SCHEDULE = "schedule"
    RELEASE = "release"
    OPERATOR = "operator"
    ONCE = "once"  # `emptybox once`


class JobResult(StrEnum):
    """How far a run is, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # it was cut short, and nobody knows how far it got
    STOPPED = "stopped"
    MISSED = "missed"
    SKIPPED = "skipped"

    @property
    def open(self) -> bool:
        """Whether it has no end yet."""
        return self in (JobResult.WAITING, JobResult.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of a job, or `count` due times at which none began, from `due` to `until`.

    `spec` is the digest of the specification it began with. `child` is the keeper's name of the newest
    attempt, `life` the keeper's own id then: by both the next agent knows what became of it. `again` is when
    the next attempt is due. Times are seconds since the epoch, 0.0 where there is none.
    """

    id: str
    app: str
    cause: Cause
    result: JobResult
    due: float = 0.0
    until: float = 0.0
    count: int = 1
    spec: str = ""
    version: str = ""
    commit: str = ""
    by: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    attempt: int = 0
    child: str = ""
    life: str = ""
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    again: float = 0.0
    code: int | None = None
    signal: int | None = None
    failure: FailureInfo | None = None


@dataclass(frozen=True, slots=True)
class JobStanding:
    """What of a job's schedule is accounted for.

    Every due time up to `accounted` (seconds since the epoch) of `schedule` has its row, or came before the
    job; `released` is the specification whose run after its release has one.
    """

    accounted: float
    schedule: str
    released: str = ""


def run_json(run: JobRun) -> dict[str, Any]:
    """A run as JSON, without its output."""
    failure = run.failure
    return {
        "id": run.id,
        "app": run.app,
        "cause": str(run.cause),
        "by": run.by or None,
        "result": str(run.result),
        "due": rfc3339(run.due) or None,
        "until": rfc3339(run.until) or None,
        "count": run.count,
        "version": run.version or None,
        "commit": run.commit or None,
        "parameters": secrets.data(run.parameters),
        "attempt": run.attempt,
        "started": rfc3339(run.started) or None,
        "ended": rfc3339(run.ended) or None,
        "seconds": round(run.ended - run.started, 3) if run.ended and run.started else None,
        "again": rfc3339(run.again) or None,
        "code": run.code,
        "signal": run.signal,
        "failure": None
        if failure is None
        else {"reason": failure.reason, "message": failure.message, "remedy": failure.remedy},
    }
