"""Facts about jobs, published and heard like all others: see `agent.domain.events`."""

from __future__ import annotations

from dataclasses import dataclass

from agent.domain.events import Event
from agent.domain.job import Cause, JobResult, JobRun


@dataclass(frozen=True, slots=True)
class JobPlanned(Event):
    """When a job's next run is due by its schedule (seconds since the epoch; 0.0: never by itself).

    `gone`: the app is no job any more.
    """

    app: str
    schedule: str
    time_zone: str
    next: float
    gone: bool = False


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """An attempt of a job's run began, or was found under way by a new agent."""

    app: str
    run: str
    cause: Cause
    attempt: int
    pid: int
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """A job's run ended, after so many seconds; `earlier`: long ago, it is only told again to a new agent."""

    app: str
    run: JobRun
    seconds: float
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class JobPassed(Event):
    """Due times of a job, from `first` to `last`, at which no run began: missed or skipped."""

    app: str
    result: JobResult
    count: int
    first: float
    last: float
