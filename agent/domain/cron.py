"""Cron expressions in time zones: five fields, or six with the seconds first. Pure.

With five fields the clock's changes are treated as by Debian's cron: what is due at a fixed time that a
spring night skips is due right after the gap, and what is due in an hour that an autumn night has twice
is due once; what has a `*` in its hour or minute follows the real time. Six fields follow the real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime


class CronInvalid(ValueError):
    """Not a cron expression, or no time zone; `field` says which of the two: "cron" or "time_zone"."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def occurrences(cron: str, time_zone: str, at: float, *, reverse: bool = False) -> Iterator[datetime]:
    """The times after `at` (seconds since the epoch), or before it. Raises CronInvalid at once.

    The iterator ends where an expression never comes again (the 30th of February).
    """
    from zoneinfo import ZoneInfo

    from cronsim import CronSim, CronSimError

    try:
        zone = ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        raise CronInvalid("time_zone", f"there is no time zone {time_zone[:64]!r}") from None
    try:
        return CronSim(cron, datetime.fromtimestamp(at, zone), reverse=reverse)
    except CronSimError as error:
        raise CronInvalid("cron", f"{cron[:64]!r} is not a cron expression: {error}") from None


def following(cron: str, time_zone: str, at: float) -> float | None:
    """The first time after `at`, in seconds since the epoch; None: never again."""
    times = (moment.timestamp() for moment in occurrences(cron, time_zone, at))
    return next((time for time in times if time > at), None)


def last(cron: str, time_zone: str, at: float) -> float | None:
    """The last time that is not after `at`; None: there was none."""
    times = (moment.timestamp() for moment in occurrences(cron, time_zone, at + 61.0, reverse=True))
    return next((time for time in times if time <= at), None)
