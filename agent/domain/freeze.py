"""Freeze windows: times in which what runs is left as it is. Pure, but for the clock's time zones.

A window begins whenever its cron expression says so (five fields, in its time zone) and lasts for its
duration. Within one, runs prepare what is wanted and do not switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.domain import cron
from agent.domain.cron import CronInvalid
from agent.domain.spec import Spec

LONGEST = 31 * 86400.0  # seconds a window may last


class FreezeSpec(Spec, frozen=True, kw_only=True):
    """One window. `duration` in seconds."""

    cron: str
    duration: float
    time_zone: str = "UTC"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """Now is within a window, until then (seconds since the epoch)."""

    until: float
    reason: str

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"frozen until {until}{f': {self.reason}' if self.reason else ''}"


def check(window: FreezeSpec) -> None:
    """Raises CronInvalid for an unknown time zone and for what is no cron expression."""
    cron.occurrences(window.cron, window.time_zone, 0.0)


def frozen(windows: Sequence[FreezeSpec], now: float) -> Frozen | None:
    """The window that `now` (seconds since the epoch) is in; of several the one that ends last."""
    found: Frozen | None = None
    for window in windows:
        begin = _last(window, now)
        if begin is None or now >= begin + window.duration:
            continue
        until = begin + window.duration
        if found is None or until > found.until:
            found = Frozen(until, window.reason)
    return found


def next_change(windows: Sequence[FreezeSpec], now: float) -> float | None:
    """When `frozen` may be another: the end of the window that is, or the next begin; None: never."""
    times = [begin for window in windows if (begin := _next(window, now)) is not None]
    current = frozen(windows, now)
    if current is not None:
        times.append(current.until)
    return min(times, default=None)


def _last(window: FreezeSpec, now: float) -> float | None:
    """The last begin that is not after `now`."""
    try:
        return cron.last(window.cron, window.time_zone, now)
    except CronInvalid:
        return None


def _next(window: FreezeSpec, now: float) -> float | None:
    """The first begin after `now`."""
    try:
        return cron.following(window.cron, window.time_zone, now)
    except CronInvalid:
        return None
