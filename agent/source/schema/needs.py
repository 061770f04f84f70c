"""`needs`: apps of the same state that have to serve before this one starts."""

from __future__ import annotations

from collections.abc import Mapping

from agent.source.problems import nearest, shown
from agent.source.schema.app import App
from agent.source.schema.place import Place


def check_needs(apps: Mapping[str, App], place: Place) -> None:
    """Note names that are no apps, and circles, each at the entry that closes it."""
    done: set[str] = set()
    for name, app in apps.items():
        for number, other in enumerate(app.needs or ()):
            if other not in apps:
                at = place / name / "needs" / number
                at.problem(f"there is no app {shown(other)}{nearest(other, apps)}")
        if name not in done:
            _follow(name, apps, place, done)


def _follow(start: str, apps: Mapping[str, App], place: Place, done: set[str]) -> None:
    """Walk from one app along its needs, without recursion: a state may name many."""
    path, left = [start], [list(enumerate(apps[start].needs or ()))]
    while path:
        if not left[-1]:
            done.add(path.pop())
            left.pop()
            continue
        number, other = left[-1].pop(0)
        if other in path:
            circle = " -> ".join([*path[path.index(other) :], other])
            (place / path[-1] / "needs" / number).problem(f"a circle: {circle}")
        elif other in apps and other not in done:
            path.append(other)
            left.append(list(enumerate(apps[other].needs or ())))
