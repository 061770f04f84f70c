"""`tasks` and `hooks`: commands of the operator's at points of a deploy and of an app's life."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Annotated

import msgspec

from agent.domain.spec import HooksSpec, TaskSpec
from agent.source.problems import nearest, shown
from agent.source.schema.place import Place
from agent.source.schema.scalars import Command, Duration, Raw

PREPARE = ("fetch", "verify", "unpack", "render", "check")  # a task always comes after these
CHAIN = ("migrate", "stop", "start", "probe", "switch", "drain")
TASKS_MAX = 50
NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?", re.IGNORECASE)


class Task(Raw, frozen=True, kw_only=True):
    """A command hung into the task graph."""

    command: Command | None = None
    after: list[str] | None = None
    before: list[str] | None = None
    timeout: Duration | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None


class Hooks(Raw, frozen=True, kw_only=True):
    """Commands at points of an app's life."""

    init: Command | None = None
    cleanup: Command | None = None
    crashed: Command | None = None
    timeout: Duration | None = None


def task_specs(raw: Mapping[str, Task], place: Place) -> tuple[TaskSpec, ...]:
    """The tasks, in the file's order, their points known and free of circles."""
    if len(raw) > TASKS_MAX:
        place.problem(f"more than {TASKS_MAX} tasks")
        return ()
    specs = tuple(_task(name, task, raw, place / name) for name, task in raw.items())
    if place.sound:
        _refuse_circles(specs, place)
    return specs


def _task(name: str, raw: Task, tasks: Mapping[str, Task], place: Place) -> TaskSpec:
    if not NAME.fullmatch(name) or name in (*PREPARE, *CHAIN):
        place.problem("a task's name holds letters, digits, -, _ and . and is no step's own", key=True)
    if raw.command is None:
        place.missing("command")
    default = TaskSpec(name=name, command=())
    return TaskSpec(
        name=name,
        command=(place / "command").command(raw.command),
        after=_points(raw.after or [], (*PREPARE, *CHAIN, *tasks), place / "after"),
        before=_points(raw.before or [], (*CHAIN, *tasks), place / "before"),
        timeout=positive(raw.timeout, default.timeout, place / "timeout"),
        retries=raw.retries or 0,
    )


def _points(raw: list[str], known: tuple[str, ...], place: Place) -> tuple[str, ...]:
    for index, point in enumerate(raw):
        if point in known:
            continue
        if point in PREPARE:
            (place / index).problem(
                f"every task runs after {point}; before names {', '.join(CHAIN)} or a task"
            )
        elif (place / index).sound:
            (place / index).problem(f"unknown step {shown(point)}{nearest(point, known)}")
    return tuple(raw)


def _refuse_circles(specs: tuple[TaskSpec, ...], place: Place) -> None:
    graph: dict[str, set[str]] = {later: {step} for step, later in pairwise(CHAIN)}
    for spec in specs:
        graph.setdefault(spec.name, set()).update(spec.after)
        for point in spec.before:
            graph.setdefault(point, set()).add(spec.name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        first = next(name for name in circle if name in {spec.name for spec in specs})
        (place / first).problem(f"goes in a circle: {' → '.join(map(shown, circle))}", key=True)


def hooks_spec(raw: Hooks | None, place: Place) -> HooksSpec:
    """The hooks."""
    raw = raw or Hooks()
    return HooksSpec(
        init=(place / "init").command(raw.init),
        cleanup=(place / "cleanup").command(raw.cleanup),
        crashed=(place / "crashed").command(raw.crashed),
        timeout=positive(raw.timeout, HooksSpec().timeout, place / "timeout"),
    )


def positive(raw: Duration | None, default: float, place: Place) -> float:
    """A time that bounds something."""
    if raw is not None and raw <= 0:
        place.problem("must be longer than nothing")
    return default if raw is None else float(raw)
