"""`place`, `after` and `drift`: apps of files only, and what is done about files changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.domain.spec import AppSpec, DriftSpec, PlaceSpec
from agent.source.nodes import mark_at
from agent.source.problems import shown
from agent.source.schema.place import NAME_MAX, PATH_MAX, Place
from agent.source.schema.scalars import Duration, Raw, seconds

PLACES_MAX = 50
LOOK_MIN = 0.1  # seconds between two looks for drift
# What an app of files only has no use for: it has no program, no port and no user of its own.
OF_PROGRAMS = (
    *("dirs", "env", "tasks", "migrate", "rollback", "run", "listen", "socket", "swap", "health"),
    *("canary", "drain", "maintenance"),
)


class Drift(Raw, frozen=True, kw_only=True):
    """What is done about files that are not as they were written."""

    action: Literal["repair", "report", "ignore"] | None = None
    every: Duration | None = None


def drift_spec(raw: Drift | None, place: Place) -> DriftSpec:
    """The rules of looking for drift."""
    default, raw = DriftSpec(), raw or Drift()
    if raw.every is not None and raw.every < LOOK_MIN:
        (place / "every").problem("must be at least 100ms; write action: ignore to never look")
    return DriftSpec(action=raw.action or default.action, every=seconds(raw.every, default.every))


def place_specs(raw: str | Mapping[str, str], place: Place) -> tuple[PlaceSpec, ...]:
    """Where links into the app's files are put, and what of them each shows."""
    if isinstance(raw, str):
        path = _absolute(raw, place)
        return (PlaceSpec(path=path),) if path else ()
    if not raw:
        place.problem("names no place")
    if len(raw) > PLACES_MAX:
        place.problem(f"more than {PLACES_MAX} places")
        return ()
    found: list[PlaceSpec] = []
    for name, inner in raw.items():
        at = place / name
        path = _absolute(name, at)
        other = next((o.path for o in found if path and overlap(path, o.path)), "")
        if other:
            at.problem(f"{path} and {other} cannot both be links", key=True)
        shows = at.render(inner)
        if at.sound:
            shows = "" if shows.strip("/") in ("", ".") else at.relative(shows)
        if path and not other:
            found.append(PlaceSpec(path=path, inner=shows))
    return tuple(found)


def overlap(one: str, other: str) -> bool:
    """Whether two places are one, or one lies inside the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _absolute(text: str, place: Place) -> str:
    path = place.render(text)
    if not place.sound:
        return ""
    parts = path.split("/")[1:]
    wrong = ""
    if not path.startswith("/"):
        wrong = "a place is an absolute path: /var/www/docs"
    elif any(part in ("", ".", "..") for part in parts):
        wrong = "a place is written without .., . and empty names, and ends in a name"
    elif any(not c.isprintable() for c in path):
        wrong = "holds control characters"
    elif len(path) > PATH_MAX or any(len(part.encode()) > NAME_MAX for part in parts):
        wrong = "is too long"
    if wrong:
        place.problem(wrong)
        return ""
    return path


def refuse_mixtures(given: Mapping[str, object], place: Place) -> None:
    """Note each key that an app with `place` cannot have, and that it has nothing to place."""
    for key in OF_PROGRAMS:
        if given.get(key) is not None:
            text = "an app with place has no program; write a second app for the program"
            (place / key).problem(text, key=True)
    if given.get("artifact") is None and not given.get("files") and place.intact("artifact", "files"):
        (place / "place").problem("there is nothing to place: the app has no artifact and no files", key=True)


def refuse_shared_places(apps: Mapping[str, AppSpec], place: Place) -> None:
    """Note each place that an app before has, or that lies in one of it."""
    taken: list[tuple[str, str]] = []
    for name, spec in apps.items():
        for each in spec.places:
            other = next(((o, path) for o, path in taken if overlap(each.path, path)), None)
            if other is not None:
                mark = mark_at(place.work.root, (*place.path, other[0], "place"))
                (place / name / "place").problem(
                    f"{shown(each.path)} and {shown(other[1])} of {other[0]} ({mark.file}:{mark.line})"
                    " cannot both be links"
                )
        taken += [(name, each.path) for each in spec.places]
