"""From what is and what is wanted to a plan: pure, each step with its reason.

The shapes of a plan (`-->` waits for):

    overlap   fetch --> verify --> unpack --+
              render -----------------------+--> check --> migrate --> start --> probe --> switch --> drain
    canary    ... start --> probe --> canary --> switch --> drain       an overlap, a share of clients first
    rollout   ... start --> probe --> [canary] --> rollout --> switch --> drain    of several instances
    restart   ... migrate --> stop --> start --> probe --> switch
    reload    render --> check --> reload --> probe --> record
    record    record             only what the agent itself uses changed: nothing is touched
    scale     scale --> record             only the number of instances changed
    place     fetch --> verify --> unpack, render --> check --> place --> after --> record    no program
    repair    repair --> reload --> probe          files of what serves were changed on this host

In a freeze only what comes before `migrate` is planned, without tasks: a run that prepares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.deploy.differences import (
    changed_files,
    changes,
    only_files,
    runtime_changes,
    same_ports,
    scaled,
    told,
)
from agent.domain.errors import FailureInfo
from agent.domain.model import NoChange, Plan, PlannedStep
from agent.domain.spec import AppSpec, OnChange, Swap

PREPARING = ("fetch", "verify", "release", "render", "check")  # kinds of steps that touch nothing that runs
PREPARE = ("fetch", "verify", "unpack", "render", "check")
POINTS = (
    *PREPARE,
    "migrate",
    "stop",
    "start",
    "probe",
    "switch",
    "drain",
    "reload",
    "record",
    "place",
    "after",
    "unplace",
    "repair",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the planner has to know; everything else is not its business.

    `current` is the spec that serves or last served. `in_store` says whether the wanted release is
    there. `quarantined` is the failure for which the wanted spec was set aside. `frozen` is the freeze that
    holds the wish up, `prepared` says that this spec was prepared in it. `gate_conflict` says that the
    wanted ports cannot be opened while the old child lives, `memory_short` why two children do not fit side
    by side ("" when they do). `comparable`: what serves is healthy and the wish is no way back, so that a
    canary beside it makes sense. `drifted`: what of the wanted, which serves, was changed here.
    """

    current: AppSpec | None = None
    alive: bool = False
    in_store: bool = False
    quarantined: FailureInfo | None = None
    paused: str | None = None
    frozen: str | None = None
    prepared: bool = False
    gate_conflict: bool = False
    memory_short: str = ""
    comparable: bool = True
    first: bool = False
    drifted: tuple[str, ...] = ()


def plan(wanted: AppSpec, now: Situation) -> Plan | NoChange:
    """Compare and plan. The first matching line decides."""
    if now.drifted:
        return _repair(wanted, now.drifted)
    if now.current is not None and now.alive and now.current.digest == wanted.digest:
        return NoChange(wanted.name, "up to date")
    if now.quarantined is not None:
        why = f"{now.quarantined.reason}: {now.quarantined.message}"
        return NoChange(
            wanted.name,
            f"quarantined ({why}); push a changed specification, or `emptybox retry {wanted.name}`",
        )
    if now.paused is not None:
        return NoChange(wanted.name, f"updates are paused: {now.paused}")
    if now.frozen is not None and now.current is not None and now.alive:
        return _preparation(wanted, now, now.current, now.frozen)
    if now.current is None or not now.alive:
        return _anew(wanted, now, _why_anew(wanted, now))
    return _change(wanted, now, now.current)


def _change(wanted: AppSpec, now: Situation, current: AppSpec) -> Plan:
    """From what runs to what is wanted."""
    changed = changes(current, wanted)
    if not runtime_changes(current, wanted):
        scale, reason = _scale(current, wanted), told(changed)
        record = PlannedStep("record", "record", reason, tuple(step.name for step in scale))
        return Plan(wanted.name, reason, (*scale, record))
    if wanted.run is not None and only_files(current, wanted):
        actions = {f.on_change for f in changed_files(current, wanted)}
        if OnChange.RESTART not in actions:
            return _reload(current, wanted, told(changed))
    return _anew(wanted, now, told(changed))


def _scale(current: AppSpec, wanted: AppSpec, last: tuple[str, ...] = ()) -> list[PlannedStep]:
    why = scaled(current, wanted)
    return [PlannedStep("scale", "scale", why, last)] if why else []


def _anew(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    return _placement(wanted, now, reason) if wanted.run is None else _replacement(wanted, now, reason)


def _why_anew(wanted: AppSpec, now: Situation) -> str:
    """Why there is everything to do, where nothing is alive."""
    if wanted.run is not None:
        return "first start" if now.current is None else "nothing runs"
    return "first placing" if now.current is None else "the last placing did not end"


def _preparation(wanted: AppSpec, now: Situation, current: AppSpec, frozen: str) -> Plan | NoChange:
    """In a freeze: what can be done without touching what runs; the rest waits for its end."""
    whole = _change(wanted, now, current)
    steps = tuple(step for step in whole.steps if step.kind in PREPARING)
    if now.prepared:
        return NoChange(wanted.name, f"prepared; {frozen}")
    if not steps:
        return NoChange(wanted.name, frozen)
    return Plan(wanted.name, f"{frozen}; prepares: {whole.reason}", steps)


def _repair(wanted: AppSpec, drifted: tuple[str, ...]) -> Plan:
    """What serves stays; a program that was told of a changed file is told once more."""
    reason = f"{', '.join(drifted[:4])}{' and more' if len(drifted) > 4 else ''} changed on this host"
    steps = [PlannedStep("repair", "repair", reason)]
    reloads = tuple(f.target for f in wanted.files if f.target in drifted and f.on_change is OnChange.RELOAD)
    if reloads and wanted.run is not None:
        steps += _telling(reloads, "repair")
    if wanted.after:
        steps.append(PlannedStep("after", "after", "others are told of them again", ("repair",)))
    return Plan(wanted.name, reason, tuple(steps))


def _telling(targets: tuple[str, ...], last: str) -> list[PlannedStep]:
    """Tell the child of changed files, and see how it takes that."""
    return [
        PlannedStep("reload", "reload", "a changed file asks for it", (last,), {"targets": targets}),
        PlannedStep("probe", "probe", "still healthy after the reload", ("reload",)),
    ]


def _placement(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    steps = _prepare(wanted, now)
    last = "check"
    if now.alive and now.current is not None and now.current.run is not None:
        steps.append(PlannedStep("stop", "stop", "the app has no program any more", (last,)))
        last = "stop"
    steps.append(PlannedStep("place", "put", reason, (last,)))
    last = "place"
    if wanted.after:
        steps.append(PlannedStep("after", "after", "others are told of the new files", (last,)))
        last = "after"
    steps.append(PlannedStep("record", "record", "what is placed from now on", (last,)))
    return Plan(wanted.name, reason, tuple(steps))


def _reload(old: AppSpec, wanted: AppSpec, reason: str) -> Plan:
    steps = [
        PlannedStep("render", "render", reason),
        PlannedStep("check", "check", "before the child sees it", ("render",)),
    ]
    last = "check"
    targets = tuple(f.target for f in changed_files(old, wanted) if f.on_change is OnChange.RELOAD)
    if targets:
        steps += _telling(targets, last)
        last = "probe"
    else:
        steps.append(PlannedStep("reload", "place", "changed files ask for nothing more", (last,)))
        last = "reload"
    steps += (scale := _scale(old, wanted, (last,)))
    last = "scale" if scale else last
    steps.append(PlannedStep("record", "record", "what serves from now on", (last,)))
    return Plan(wanted.name, reason, tuple(steps))


def _prepare(wanted: AppSpec, now: Situation) -> list[PlannedStep]:
    """Everything up to `check`: nothing that serves is touched."""
    steps: list[PlannedStep] = []
    ready: list[str] = []
    if wanted.artifact is not None:
        if now.in_store:
            steps.append(PlannedStep("unpack", "release", "already in the store"))
        else:
            steps += [
                PlannedStep("fetch", "fetch", "not in the store"),
                PlannedStep("verify", "verify", "nothing unverified is used", ("fetch",)),
                PlannedStep("unpack", "release", "a release appears whole", ("verify",)),
            ]
        ready.append("unpack")
    steps.append(
        PlannedStep("render", "render", f"{len(wanted.files)} files" if wanted.files else "no files")
    )
    ready.append("render")
    steps.append(PlannedStep("check", "check", "look before the old one is touched", tuple(ready)))
    return steps


def _replacement(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    placed = now.current is not None and now.current.run is None
    if placed:
        now = replace(now, alive=False)  # there is no old child
    steps = _prepare(wanted, now)
    gate = ["check"]
    for migration in wanted.migrate:
        name = f"migrate {migration.name}" if len(wanted.migrate) > 1 else "migrate"
        steps.append(
            PlannedStep(
                name, "migrate", "the new version needs it", tuple(gate), {"migration": migration.name}
            )
        )
        gate = [name]
    why = _why_restart(wanted, now)
    restart = bool(why)
    if restart and now.alive:
        steps.append(PlannedStep("stop", "stop", why, tuple(gate), {"memory_short": now.memory_short}))
        gate = ["stop"]
    steps += [
        PlannedStep("start", "start", reason, tuple(gate)),
        PlannedStep("probe", "probe", "only a healthy version serves", ("start",)),
    ]
    healthy = "probe"
    if wanted.canary is not None and not restart and _can_share(wanted, now):
        why = f"{wanted.canary.percent} % of new connections first"
        steps.append(PlannedStep("canary", "canary", why, ("probe",)))
        healthy = "canary"
    if wanted.run is not None and wanted.run.instances > 1:
        why = f"{wanted.run.instances} instances, one after the other"
        steps.append(PlannedStep("rollout", "rollout", why, (healthy,)))
        healthy = "rollout"
    steps.append(PlannedStep("switch", "switch", "the new one is healthy", (healthy,)))
    if placed:
        steps.append(PlannedStep("unplace", "unplace", "the app has a program now", ("switch",)))
    if now.alive and not restart and wanted.listen:
        steps.append(PlannedStep("drain", "drain", "no waiting connection is lost", ("switch",)))
    return Plan(wanted.name, reason, tuple(_with_tasks(wanted, steps)))


def _can_share(wanted: AppSpec, now: Situation) -> bool:
    """Whether clients can be shared with what serves: on the same ports, and it is healthy."""
    beside = now.alive and now.comparable and bool(wanted.listen)
    return beside and now.current is not None and same_ports(now.current, wanted)


def _why_restart(wanted: AppSpec, now: Situation) -> str:
    """Why the old child has to go first; "" when both may run for a while."""
    if wanted.swap is Swap.RESTART:
        return "swap: restart"
    if now.gate_conflict:
        return "its ports overlap with the old ones"
    return f"no memory for two: {now.memory_short}" if now.memory_short else ""


def _with_tasks(wanted: AppSpec, steps: list[PlannedStep]) -> list[PlannedStep]:
    """Hang the operator's tasks into the graph.

    A task always waits for `check` (its working directory is complete then) and, unless it says
    otherwise, holds up `switch`. A point that this plan does not have is no bar.
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
            first = next((name for name in ("canary", "rollout") if name in there), point)
            for later in resolve(first if point == "switch" else point, False):
                waits.setdefault(later, []).append(name)
    return [
        replace(s, needs=tuple(dict.fromkeys((*s.needs, *waits.get(s.name, ()))))) for s in (*steps, *planned)
    ]
