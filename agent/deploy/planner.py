"""From what is and what is wanted to a plan: pure, each step with its reason.

The shapes of a plan (`-->` waits for):

    overlap   fetch --> verify --> unpack --+
              render -----------------------+--> check --> migrate --> start --> probe --> switch --> drain
    canary    ... start --> probe --> canary --> switch --> drain       an overlap, a share of clients first
    rollout   ... start --> probe --> [canary] --> rollout --> switch --> drain    of several instances
    restart   ... migrate --> stop --> start --> probe --> switch
    alone     ... migrate (expand) --> stop --> migrate (exclusive, reversible, irreversible) --> start ...
    way back  ... stop --> down --> start ...        reversible migrations are taken back for an older version
    contract  check --> contract                     what serves has proved itself: older versions may not run
    reload    render --> check --> reload --> probe --> record
    record    record             only what the agent itself uses changed: nothing is touched
    scale     scale --> record             only the number of instances changed
              fetch --> verify --> unpack --> record     a signature that nobody has looked at is asked for
    place     fetch --> verify --> unpack, render --> check --> place --> after --> record    no program
    job       ... check --> rest --> migrate --> record       a program that runs to its end, between two runs
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
    sql_changed,
    told,
)
from agent.deploy.plan_tasks import PREPARE, with_tasks
from agent.deploy.planned_migrations import contraction, job_migrations, migration_step, migrations
from agent.domain.errors import FailureInfo
from agent.domain.model import NoChange, Plan, PlannedStep
from agent.domain.spec import AppSpec, OnChange, Swap

PREPARING = ("fetch", "verify", "release", "render", "check")  # kinds of steps that touch nothing that runs
POINTS = (
    *PREPARE, "migrate", "stop", "down", "start", "probe", "switch", "drain", "reload", "record", "place",
    "after", "unplace", "rest", "repair",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the planner has to know; everything else is not its business.

    `current` is the spec that serves or last served. `in_store` says whether the wanted release is
    there, and signed as it must be; `signatures` whose signatures are asked for ("" nobody's). `quarantined`
    is the failure for which the wanted spec was set aside. `frozen` is the freeze that holds the wish up,
    `prepared` says that this spec was prepared in it. `gate_conflict` says that the wanted ports cannot be
    opened while the old child lives, `memory_short` why two children do not fit side by side ("" when they
    do). `comparable`: what serves is healthy and the wish is no way back, so that a canary beside it makes
    sense. `drifted`: what of the wanted, which serves, was changed here. `contracts` are the names of
    migrations that are due now that what serves has proved itself, `downs` of those that have to be taken
    back first.
    """

    current: AppSpec | None = None
    alive: bool = False
    in_store: bool = False
    signatures: str = ""
    quarantined: FailureInfo | None = None
    paused: str | None = None
    frozen: str | None = None
    prepared: bool = False
    gate_conflict: bool = False
    memory_short: str = ""
    comparable: bool = True
    first: bool = False
    drifted: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()
    downs: tuple[str, ...] = ()


def plan(wanted: AppSpec, now: Situation) -> Plan | NoChange:
    """Compare and plan. The first matching line decides."""
    if now.drifted:
        return _repair(wanted, now.drifted)
    if now.current is not None and now.alive and now.current.digest == wanted.digest:
        if now.contracts and now.paused is None and now.frozen is None:
            return contraction(wanted, now.contracts)
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
        delivery = _delivery(now) if now.signatures and not now.in_store else []
        scale = _scale(current, wanted, tuple(step.name for step in delivery[-1:]))
        steps, reason = (*delivery, *scale), told(changed)
        record = PlannedStep("record", "record", reason, tuple(step.name for step in steps[-1:]))
        return Plan(wanted.name, reason, (*steps, record))
    if wanted.run is not None and only_files(current, wanted):
        actions = {f.on_change for f in changed_files(current, wanted)}
        if OnChange.RESTART not in actions and not sql_changed(current, wanted):
            return _reload(current, wanted, told(changed))
    return _anew(wanted, now, told(changed))


def _scale(current: AppSpec, wanted: AppSpec, last: tuple[str, ...] = ()) -> list[PlannedStep]:
    why = scaled(current, wanted)
    return [PlannedStep("scale", "scale", why, last)] if why else []


def _anew(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    if wanted.job is not None:
        return _job(wanted, now, reason)
    return _placement(wanted, now, reason) if wanted.run is None else _replacement(wanted, now, reason)


def _why_anew(wanted: AppSpec, now: Situation) -> str:
    """Why there is everything to do, where nothing is alive."""
    if wanted.job is not None:
        return "first release" if now.current is None else "the last update did not end"
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


def _job(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    """A job's release: between two runs, from one instant to the next."""
    old = now.current if now.alive else None
    steps = _prepare(wanted, now)
    if wanted.needs:
        steps.append(PlannedStep("needs", "needs", f"{', '.join(wanted.needs)} first", ("check",)))
    last = "needs" if wanted.needs else "check"
    if old is not None and old.run is not None:
        steps.append(PlannedStep("stop", "stop", "the app is a job now", (last,)))
    steps += _rest(now, last)
    steps += job_migrations(wanted, steps[-1].name)
    gate = (steps[-1].name,)
    steps.append(PlannedStep("record", "record", reason, gate))
    if old is not None and old.places:
        steps.append(PlannedStep("unplace", "unplace", "the app is a job now", ("record",)))
    return Plan(wanted.name, reason, tuple(with_tasks(wanted, steps)))


def _rest(now: Situation, last: str = "check") -> list[PlannedStep]:
    """Where the app is a job: wait for its run, and let none begin meanwhile."""
    if now.current is None or now.current.job is None:
        return []
    return [PlannedStep("rest", "rest", "never in the middle of a run", (last,))]


def _placement(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    steps = _prepare(wanted, now)
    last = "check"
    if now.alive and now.current is not None and now.current.run is not None:
        steps.append(PlannedStep("stop", "stop", "the app has no program any more", (last,)))
        last = "stop"
    steps += _rest(now)
    last = steps[-1].name
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
            steps += _delivery(now)
        ready.append("unpack")
    steps.append(
        PlannedStep("render", "render", f"{len(wanted.files)} files" if wanted.files else "no files")
    )
    ready.append("render")
    steps.append(PlannedStep("check", "check", "look before the old one is touched", tuple(ready)))
    return steps


def _delivery(now: Situation) -> list[PlannedStep]:
    """The artifact comes, or comes again: its release may be here, but nobody has seen who signed it."""
    verified = (
        f"nothing unverified is used; {now.signatures}" if now.signatures else "nothing unverified is used"
    )
    return [
        PlannedStep("fetch", "fetch", "not in the store"),
        PlannedStep("verify", "verify", verified, ("fetch",)),
        PlannedStep("unpack", "release", "a release appears whole", ("verify",)),
    ]


def _replacement(wanted: AppSpec, now: Situation, reason: str) -> Plan:
    placed = now.current is not None and now.current.run is None
    if placed:
        now = replace(now, alive=False)  # there is no old child
    steps = _prepare(wanted, now)
    steps += _rest(now)
    gate = [steps[-1].name if _rest(now) else "check"]
    if wanted.needs:
        steps.append(PlannedStep("needs", "needs", f"{', '.join(wanted.needs)} first", tuple(gate)))
        gate = ["needs"]
    beside, alone = migrations(wanted, bool(now.downs))
    for migration in beside:
        steps.append(migration_step(wanted, migration, tuple(gate)))
        gate = [steps[-1].name]
    why = _why_restart(wanted, now)
    restart = bool(why)
    if restart and now.alive:
        steps.append(PlannedStep("stop", "stop", why, tuple(gate), {"memory_short": now.memory_short}))
        gate = ["stop"]
    if now.downs:
        why = f"takes back {', '.join(now.downs)}: this version cannot run on it"
        steps.append(PlannedStep("down", "down", why, tuple(gate)))
        gate = ["down"]
    for migration in alone:
        steps.append(migration_step(wanted, migration, tuple(gate)))
        gate = [steps[-1].name]
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
    return Plan(wanted.name, reason, tuple(with_tasks(wanted, steps)))


def _can_share(wanted: AppSpec, now: Situation) -> bool:
    """Whether clients can be shared with what serves: on the same ports, and it is healthy."""
    beside = now.alive and now.comparable and bool(wanted.listen)
    return beside and now.current is not None and same_ports(now.current, wanted)


def _why_restart(wanted: AppSpec, now: Situation) -> str:
    """Why the old child has to go first; "" when both may run for a while."""
    if wanted.swap is Swap.RESTART:
        return "swap: restart"
    if now.downs:
        return f"the data go back first: {', '.join(now.downs)}"
    alone = [m.name for m in wanted.migrate if m.kind.alone]
    if alone:
        return f"nobody may run beside migration {', '.join(alone)}"
    if now.gate_conflict:
        return "its ports overlap with the old ones"
    return f"no memory for two: {now.memory_short}" if now.memory_short else ""
