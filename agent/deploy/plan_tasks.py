"""The operator's tasks in a plan: where each is hung into the graph of steps. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.domain.model import PlannedStep
from agent.domain.spec import AppSpec

PREPARE = ("fetch", "verify", "unpack", "render", "check")  # a task always comes after these


def with_tasks(wanted: AppSpec, steps: list[PlannedStep]) -> list[PlannedStep]:
    """Hang the operator's tasks into the graph.

    A task always waits for `check` (its working directory is complete then) and, unless it says
    otherwise, holds up `switch`, or `record` where a job is updated. A point that this plan does not
    have is no bar.
    """
    if not wanted.tasks:
        return steps
    tasks = {task.name for task in wanted.tasks}
    migrations = [s.name for s in steps if s.kind == "migrate"]
    there = {s.name for s in steps}

    def resolve(point: str, last: bool) -> list[str]:
        if point in tasks:
            return [f"task {point}"]
        if point == "migrate" and migrations:
            return [migrations[-1 if last else 0]]
        return [point] if point in there else []

    waits: dict[str, list[str]] = {}
    planned = []
    for task in wanted.tasks:
        name = f"task {task.name}"
        needs = ["check", *(n for point in task.after if point not in PREPARE for n in resolve(point, True))]
        planned.append(
            PlannedStep(
                name, "task", "the specification has it", tuple(dict.fromkeys(needs)), {"task": task.name}
            )
        )
        before = task.before or (() if {"switch", "drain"} & set(task.after) else ("switch",))
        for point in before:
            # What has to be done before clients come has to be done before the first of them come.
            first = next((name for name in ("canary", "rollout", "switch", "record") if name in there), point)
            for later in resolve(first if point == "switch" else point, False):
                waits.setdefault(later, []).append(name)
    return [
        replace(s, needs=tuple(dict.fromkeys((*s.needs, *waits.get(s.name, ()))))) for s in (*steps, *planned)
    ]
