"""After a restart: bring links, gate, children and journal in line, the links being the truth.

| found | done |
|---|---|
| the keeper still has the child that the gate is open to | it goes on; `current` is brought in line |
| ... and the good pair's child beside it | kept warm, probation starts again |
| any other child of the app | stopped |
| a canary | over: the old child serves alone, the new one is drained and stopped |
| no child, and none is wanted | what is placed stays, and is good; an unfinished placing is done again |
| no child, and a migration under way, or nobody saw its end | see `unclear`; then as below |
| no child, and the data are neither pair's any more | the page, until something newer comes |
| no child | `current` is started from disk, without Git; if it does not get healthy, `good` |
| a run the journal calls unfinished | probation if its pair serves, else interrupted; see `cut_off` |
| ... on probation, and `good` names its pair | it has succeeded, whether or not its program starts |
| a program or a job, and places outside | those are taken away |
| ports that no child and no release needs | closed |
| instances and temporary files of nobody | removed |
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from agent.deploy.child import Child
from agent.deploy.cut_off import to_finish, to_take_back, turns
from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.journal_rows import UnfinishedRun
from agent.deploy.leaving import see_off
from agent.deploy.ledger import release_of
from agent.deploy.leftovers import FoundChild
from agent.deploy.services import AppContext
from agent.deploy.trial import Trial
from agent.deploy.unclear import settle_migrations
from agent.deploy.way_back import REMEDY, SCHEMA_TOO_NEW, way_back
from agent.deploy.wish import Wish
from agent.domain.errors import Failure, FailureInfo
from agent.domain.events import PairCurrent, PairGood
from agent.domain.model import RunResult, SyncResult
from agent.traffic.state import SIDES, Gate, GateState, Mode

log = logging.getLogger(__name__)


async def recover(app: AppContext, trial: Trial) -> None:
    """Do what the table says for one app. Raises Failure, OSError."""
    current, good = app.current, app.good
    app.services.bus.publish(PairGood(app.name, good.pair if good else None))
    serving = await _still_serving(app, current, good)
    processes = app.services.processes
    lived_in = {child.instance for child in app.serving.everyone()} | app.jobs.instances()
    try:
        await processes.surroundings.sweep(app.name, lived_in)
    except OSError as error:
        log.warning("%s: what an earlier agent left cannot be removed: %s", app.name, error)
    if serving is not None:
        if current is None or current.pair.spec != serving.deployment.pair.spec:
            await app.link_current(serving.deployment)
        app.services.bus.publish(PairCurrent(app.name, serving.deployment.pair))
    elif current is not None and current.spec.run is None:
        app.placed = True
        app.services.bus.publish(PairCurrent(app.name, current.pair))
    else:
        await _settle_data(app, current)
        await _start(app, current, good)
    await _unplace(app)
    await app.services.unclaimed(app.name, app.gates.all())
    await _close_runs(app, trial)


async def _unplace(app: AppContext) -> None:
    """What has a program, or is a job, shows nothing outside; it did before if the agent died in between."""
    if (current := app.current) is None or current.spec.places:
        return
    places = app.services.processes.surroundings.places(app.name)
    try:
        await asyncio.to_thread(places.settle, ())
    except (Failure, OSError) as error:
        log.warning("%s: what it placed before cannot be taken away: %s", app.name, error)


# -- children that are there --------------------------------------------------------------------------


async def _still_serving(
    app: AppContext, current: Deployment | None, good: Deployment | None
) -> Child | None:
    """The child that serves; every other one is kept warm or stopped."""
    children, strangers = [], []
    shared: list[Gate | None] = []  # where a canary was under way
    for found in app.services.processes.found(app.name):
        deployment = app.deployments.get(found.spec) if found.running else None
        if deployment is None:
            strangers.append(found)
        else:
            child = await _as_child(app, found, deployment)
            children.append((child, found.leaving))
            if child.gate is not None and await _canary_ended(child.gate):
                shared.append(child.gate)
    chosen = _choose([child for child, leaving in children if not leaving], current)
    if chosen is not None and chosen.gate is not None and not _open_to(chosen):
        await chosen.gate.serve(chosen.side)  # the agent died while it held the port; the child went on
    if chosen is not None:
        app.gates.lead(chosen.gate)
    for child, leaving in children:
        app.services.processes.tell_started(child)
        app.serving.look_after(child)
        if child is chosen:
            app.serving.child = child
        elif not leaving and any(_beside(child, each) for each in (chosen, app.serving.warm)):
            log.debug("%s: child %s is another instance", app.name, child.id)
        elif chosen is not None and not leaving and _is(child, good) and not _is(chosen, good):
            app.serving.warm = child
        else:
            log.info("%s: child %s of an interrupted run is stopped", app.name, child.id)
            if child.gate in shared:
                await see_off(app, child, child.gate)  # it has clients
            else:
                await app.serving.retire_one(child)
    if chosen is not None:
        app.serving.watch(chosen)
        await app.gates.only(*app.serving.gates())
    for stranger in strangers:
        await app.services.processes.leftovers.end(stranger.id)
        cgroups = app.services.processes.surroundings.cgroups
        await asyncio.to_thread(cgroups.remove, app.name, stranger.id)
    return chosen


async def _as_child(app: AppContext, found: FoundChild, deployment: Deployment) -> Child:
    gate = app.gates.of(deployment.spec)
    if gate is not None:
        await gate.open_ports()
    note = found.note
    return Child(found.id, found.pid, note.side, deployment, Path(note.instance), gate, note.number)


async def _canary_ended(gate: Gate) -> bool:
    """If a canary was under way, the old side has all new connections again."""
    state = gate.state
    if state.mode is not Mode.CANARY or state.side is None:
        return False
    await gate.serve(state.side)
    return True


def _choose(children: list[Child], current: Deployment | None) -> Child | None:
    """The one that its gate is open to; of several, or if there is none, the one that `current` names."""
    opened = [child for child in children if child.gate is None or _open_to(child)]
    named = [child for child in opened or children if _is(child, current)]
    return next(iter(named or opened), None)


def _beside(child: Child, other: Child | None) -> bool:
    """Whether both are instances of one deployment at one side."""
    if other is None or (child.gate, child.side) != (other.gate, other.side):
        return False
    staffed = child.gate is None or child.number in child.gate.staffed(child.side)
    return staffed and child.deployment.pair.spec == other.deployment.pair.spec


def _open_to(child: Child) -> bool:
    return child.gate is not None and child.gate.state == GateState(Mode.OPEN, child.side)


def _is(child: Child, deployment: Deployment | None) -> bool:
    return deployment is not None and child.deployment.pair.spec == deployment.pair.spec


# -- from disk ----------------------------------------------------------------------------------------


async def _start(app: AppContext, current: Deployment | None, good: Deployment | None) -> None:
    """A cold start; a current pair that does not come up gives way to the good one.

    If neither starts, nobody serves, and the lane goes on trying.
    """
    startable = [d for d in (current, good) if d is not None and d.spec.run is not None]
    pairs = {d.pair.spec: d for d in startable if app.fit(d)}
    if startable and not pairs:
        await _page(app, startable[0])
        version, release = startable[0].spec.version, release_of(startable[0].pair)
        way = way_back(app.services.journal.ledger, app.name, release, version, None, allowed=False)
        told = way.blocked or f"version {version} cannot run on the data as they are"
        app.condition("RollbackBlocked", True, SCHEMA_TOO_NEW, f"{told}; {REMEDY}")
    for number, deployment in enumerate(pairs.values(), start=1):
        if number == 1 and (why := await app.services.ready(deployment.spec.needs)):
            log.warning("%s: started although %s", app.name, why)
        try:
            healthy = await _start_one(app, deployment)
        except (Failure, OSError) as error:
            app.failed(as_info(error, "start"))
            continue
        if healthy or number == len(pairs):
            await app.link_current(deployment)
            return
        log.warning("%s: the last pair does not get healthy; the last good one is started", app.name)
        if app.serving.child is not None:
            await app.serving.retire(app.serving.child)


async def _settle_data(app: AppContext, current: Deployment | None) -> None:
    """Nobody may run beside some migrations, nor on what some leave behind: know of them first."""
    if app.services.processes.leftovers.migrates(app.name):
        if current is not None:
            await _page(app, current)
        await settle_migrations(app)
    elif current is not None and not app.fit(current):
        await settle_migrations(app)


async def _page(app: AppContext, deployment: Deployment) -> None:
    gate = app.gates.of(deployment.spec)
    app.gates.lead(gate)
    if gate is not None:
        await gate.open_ports()
        await gate.maintain()
        for side in SIDES:
            await gate.take_over(side)


async def _start_one(app: AppContext, deployment: Deployment) -> bool:
    gate, side = app.gates.of(deployment.spec), app.serving.free_side()
    await app.gates.only(gate)
    app.gates.lead(gate)
    if gate is not None:
        await gate.open_ports()
        await _canary_ended(gate)
        side = side if gate.state.side is None else gate.state.side
        await _nobody_is_there(gate, side)
    return await app.serving.bring_back(deployment, gate, side)


async def _nobody_is_there(gate: Gate, side: int) -> None:
    """A child ended while no agent was there: who waits at its side waits for the next one."""
    if gate.state.mode is Mode.OPEN:
        await gate.hold(side)
    for each in SIDES:
        await gate.take_over(each)


# -- the journal --------------------------------------------------------------------------------------


async def _close_runs(app: AppContext, trial: Trial) -> None:
    """Runs without an end get one; the one whose release serves and has not proved itself goes on."""
    unfinished, journal = app.services.unfinished, app.services.journal
    child, good = app.serving.child, app.good
    runs = unfinished.take(app.name)
    if child is None and (current := app.current) is not None and current.spec.run is None:
        # What a placing has still to do may not have been done; a job has no more to do than what is linked.
        app.placed = current.spec.job is not None or all(run.spec != current.pair.spec for run in runs)
    last: UnfinishedRun | None = None
    for run in runs:
        if child is None:
            done = run.result is RunResult.PROBATION and good is not None and run.spec == good.pair.spec
        else:
            done = run.spec == child.deployment.pair.spec and turns(run)
        last = run if done else last
    for run in runs:
        if run is last:
            continue
        if (judged := _judged(app, run)) is not None:
            back = child is not None
            await journal.close_run(run.id, RunResult.ROLLED_BACK if back else RunResult.FAILED, judged)
            told = SyncResult.ROLLED_BACK if back else SyncResult.FAILED
            unfinished.settlement(run).settle(app.name, told, judged)
            continue
        await journal.mark_interrupted(run.id)
        journal.settle_steps(run.id, {}, to_take_back(run, serves=child is not None))
        unfinished.settlement(run).settle(app.name, SyncResult.INTERRUPTED)
    proven = child is None or _is(child, good)  # it may prove itself, and then its program cannot be started
    if last is not None:
        journal.settle_steps(last.id, to_finish(last))
    if last is not None and proven:
        await journal.close_run(last.id, RunResult.SUCCEEDED)
        unfinished.settlement(last).settle(app.name, SyncResult.SUCCEEDED)
    if child is None:
        await _prove_placed(app)
    elif last is not None and not proven:
        await journal.close_run(last.id, RunResult.PROBATION)
        wish = Wish(child.deployment.spec, last.commit, unfinished.settlement(last))
        wish.settle(SyncResult.PROBATION)
        trial.resume(child.deployment, last.id, wish)
    elif not proven:
        deployment = child.deployment
        trial.resume(deployment, "", unfinished.nobodys(deployment.spec, deployment.pair.commit))


def _judged(app: AppContext, run: UnfinishedRun) -> FailureInfo | None:
    """Why a run on probation was ended, if its release was set aside and the agent died over the rest."""
    entry = app.services.journal.quarantine.find(app.name, run.spec)
    if run.result is not RunResult.PROBATION or entry is None or entry.since < run.started:
        return None
    return entry.failure


async def _prove_placed(app: AppContext) -> None:
    """What has no program is good as soon as it is all there; its agent may have died before it said so."""
    current, good = app.current, app.good
    if app.placed and current is not None and (good is None or good.pair.spec != current.pair.spec):
        await app.prove(current)
