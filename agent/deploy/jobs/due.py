"""Which times of a schedule have come that nobody has accounted for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.domain.cron import following, last, occurrences
from agent.domain.job import JobResult
from agent.domain.spec import JobSpec

LATE = 10.0  # seconds after which, with `missed: skip`, a time that came is a time that was missed
COUNTED = 1000  # times that are counted one by one


@dataclass(frozen=True, slots=True)
class Due:
    """Times that have come, in seconds since the epoch: the newest, and so many before it.

    `first` is the first of all, `before` the last but one (0.0 when there is one alone). `earlier` counts
    up to `COUNTED` and stays there.
    """

    latest: float
    earlier: int = 0
    first: float = 0.0
    before: float = 0.0


def due(job: JobSpec, accounted: float, now: float) -> Due | None:
    """What has come after `accounted`, up to `now`."""
    if not job.schedule:
        return None
    times: list[float] = []
    for moment in occurrences(job.schedule, job.time_zone, accounted):
        time = moment.timestamp()
        if time > now:
            break
        if time > accounted:
            times.append(time)
        if len(times) > COUNTED:
            newest = last(job.schedule, job.time_zone, now)
            times[-1] = max(times[-1], newest or 0.0)
            break
    if not times:
        return None
    if len(times) == 1:
        return Due(times[0])
    return Due(times[-1], len(times) - 1, times[0], times[-2])


def becomes(job: JobSpec, found: Due, now: float, *, busy: bool) -> JobResult:
    """What follows from the newest time that has come: a run, which waits to begin, or a row without one.

    `busy`: another run is under way.
    """
    if job.missed == "skip" and now - found.latest > LATE:
        return JobResult.MISSED
    return JobResult.SKIPPED if busy and not job.overlap else JobResult.WAITING


def upcoming(job: JobSpec, accounted: float, now: float) -> float | None:
    """When the next run is due; None: never by the schedule."""
    return following(job.schedule, job.time_zone, max(accounted, now)) if job.schedule else None
