"""Times in which nothing is switched: windows that begin by cron and last for a while."""

from __future__ import annotations

from agent.domain.cron import CronInvalid
from agent.domain.freeze import LONGEST, FreezeSpec, check
from agent.source.schema.place import Place
from agent.source.schema.scalars import Duration, Raw, seconds

WINDOWS_MAX = 50


class Freeze(Raw, frozen=True, kw_only=True):
    """A time in which nothing is switched."""

    cron: str | None = None
    duration: Duration | None = None
    time_zone: str | None = None
    reason: str | None = None


def freezes(raw: list[Freeze], place: Place) -> tuple[FreezeSpec, ...]:
    """The windows; mistakes are noted in `place`."""
    if len(raw) > WINDOWS_MAX:
        place.problem(f"more than {WINDOWS_MAX} windows")
        return ()
    found = []
    for number, window in enumerate(raw):
        at = place / number
        if not window.cron:
            at.missing("cron", "when it begins, as in `0 22 * * 5`")
            continue
        if not window.duration:
            at.missing("duration", "how long it lasts, as in 60h")
            continue
        spec = FreezeSpec(
            cron=window.cron,
            duration=seconds(window.duration, 0.0),
            time_zone=window.time_zone or "UTC",
            reason=window.reason or "",
        )
        if spec.duration > LONGEST:
            (at / "duration").problem("longer than 31 days")
            continue
        try:
            check(spec)
        except CronInvalid as error:
            (at / error.field).problem(str(error))
            continue
        found.append(spec)
    return tuple(found)
