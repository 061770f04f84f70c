"""Freeze windows: times in which what runs is left as it is. Pure, but for the clock's time zones.

A window begins whenever its cron expression says so (five fields, in its time zone) and lasts for its
duration. Within one, runs prepare what is wanted and do not switch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.domain.spec import Spec

LONGEST = 31 * 86400.0  # seconds a window may last


class FreezeSpec(Spec, frozen=True, kw_only=True):
    """One window. `duration` in seconds."""

    cron: str
    duration: float
    time_zone: str = "UTC"
    reason: str = ""


class FreezeInvalid(ValueError):
    """A window that cannot be one; `field` says what of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Frozen:
    """Now is within a window, until then (seconds since the epoch)."""

    until: float
    reason: str

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"frozen until {until}{f': {self.reason}' if self.reason else ''}"


def check(window: FreezeSpec) -> None:
    """Raises FreezeInvalid for an unknown time zone and for what is no cron expression."""
    _crons(window, 0.0, reverse=False)


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
        return next(
            at for begin in _crons(window, now + 61.0, reverse=True) if (at := begin.timestamp()) <= now
        )
    except (StopIteration, FreezeInvalid):  # a cron of the 30th of February never begins
        return None


def _next(window: FreezeSpec, now: float) -> float | None:
    """The first begin after `now`."""
    try:
        return next(at for begin in _crons(window, now, reverse=False) if (at := begin.timestamp()) > now)
    except (StopIteration, FreezeInvalid):
        return None


def _crons(window: FreezeSpec, at: float, *, reverse: bool) -> Iterator[datetime]:
    """The begins of a window after `at`, or before it."""
    from zoneinfo import ZoneInfo

    from cronsim import CronSim, CronSimError

    try:
        zone = ZoneInfo(window.time_zone)
    except (KeyError, ValueError, OSError):
        raise FreezeInvalid("time_zone", f"there is no time zone {window.time_zone[:64]!r}") from None
    try:
        return CronSim(window.cron, datetime.fromtimestamp(at, zone), reverse=reverse)
    except CronSimError as error:
        raise FreezeInvalid("cron", f"{window.cron[:64]!r} is not a cron expression: {error}") from None
