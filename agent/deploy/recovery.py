"""After a restart: bring links, gate, children and journal in line, the links being the truth.

| found | done |
|---|---|
| the keeper still has the child that the gate is open to | it goes on; `current` is brought in line |
| ... and the good pair's child beside it | kept warm, probation starts again |
| any other child of the app | stopped |
| a canary | over: the old child serves alone, the new one is drained and stopped |
| a migration still running | waited for, so that it never runs twice at once |
| no child | `current` is started from disk, without Git; if it is not whole, `good` |
| a run the journal calls unfinished | probation if its pair serves, else interrupted |
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.leaving import see_off
from agent.deploy.leftovers import FoundChild
from agent.deploy.services import AppContext
from agent.deploy.trial import Trial
from agent.domain.errors import Failure
from agent.domain.events import ChildStarted, PairCurrent, PairGood
from agent.domain.model import RunResult
from agent.traffic.state import Gate, GateState, Mode

log = logging.getLogger(__name__)


async def recover(app: AppContext, trial: Trial) -> None:
    """Do what the table says for one app. Raises Failure when nothing on disk can be started."""
    processes = app.services.processes
    await processes.end_commands(app.name)
    current, good = app.current, app.good
    app.services.bus.publish(PairGood(app.name, good.pair if good else None))
    found = processes.found(app.name)
    serving = await _still_serving(app, found, current)
    if serving is not None:
        if current is None or current.pair.spec != serving.deployment.pair.spec:
            await asyncio.to_thread(app.deployments.link, "current", serving.deployment)
        current = serving.deployment
        app.services.bus.publish(PairCurrent(app.name, current.pair))
    else:
        current = current or good
        if current is not None:
            await _start(app, current, good)
            current = app.serving.child.deployment if app.serving.child else current
    await _resume_trial(app, trial, current, good)


async def _still_serving(
    app: AppContext, found: list[FoundChild], current: Deployment | None
) -> Child | None:
    """The child that serves; every other one is kept warm or stopped."""
    children = [c for c in (_as_child(app, f) for f in found) if c is not None]
    shared = []
    for child in children:
        child.gate = app.gates.of(child.deployment.spec)
        if child.gate is not None:
            await child.gate.open_ports()
            shared += [child.gate] if await _canary_ended(child.gate) else []
    chosen = _choose(children, current)
    if chosen is not None:
        app.gates.lead(chosen.gate)
        if chosen.gate is not None and chosen.gate.state != GateState(Mode.OPEN, chosen.side):
            await chosen.gate.serve(chosen.side)  # the agent died while it held the port
    for child in children:
        app.services.bus.publish(ChildStarted(app.name, child.id, child.pid))
        app.serving.look_after(child)
        if child is chosen:
            app.serving.child = child
            app.serving.watch(child)
        elif chosen is not None and app.good is not None and child.deployment.pair.spec == app.good.pair.spec:
            app.serving.warm = child
        else:
            log.info("%s: child %s of an interrupted run is stopped", app.name, child.id)
            if child.gate in shared:
                await see_off(app, child, child.gate)  # it has clients
                continue
            await app.serving.retire(child, take_over=False)
            if child.gate is not None and child.gate not in [c.gate for c in children if c is not child]:
                await app.gates.give_up(child.gate)
    known = {child.id for child in children}
    for record in found:
        if record.id not in known:
            await app.services.processes.end(record.id)
    return chosen


async def _canary_ended(gate: Gate) -> bool:
    """If a canary was under way, the old side has all new connections again."""
    state = gate.state
    if state.mode is not Mode.CANARY or state.side is None:
        return False
    await gate.serve(state.side)
    return True


def _choose(children: list[Child], current: Deployment | None) -> Child | None:
    """Of those a gate is open to (or all, when none is), the one that `current` names."""
    opened = [c for c in children if c.gate is not None and c.gate.state == GateState(Mode.OPEN, c.side)]
    named = [c for c in opened or children if current and c.deployment.pair.spec == current.pair.spec]
    return next(iter(named or opened), None)


def _as_child(app: AppContext, found: FoundChild) -> Child | None:
    if not found.running:
        return None
    deployment = app.deployments.get(found.note.spec)
    if deployment is None:
        return None
    return Child(found.id, found.pid, found.note.side, deployment, Path(found.note.instance), None)


async def _start(app: AppContext, current: Deployment, good: Deployment | None) -> None:
    """A cold start from disk; a current pair that does not come up gives way to the good one."""
    gate = app.gates.of(current.spec)
    app.gates.lead(gate)
    try:
        if gate is not None:
            await gate.open_ports()
            await _canary_ended(gate)
        healthy = await app.serving.bring_back(current, gate, app.serving.free_side())
    except Failure as error:
        app.failed(error.info)
        healthy = False
    if healthy or good is None or good.pair.spec == current.pair.spec:
        if app.serving.child is not None:
            app.link_current(app.serving.child.deployment)
        return
    log.warning("%s: the last pair does not come up; the last good one is started", app.name)
    if app.serving.child is not None:
        await app.serving.retire(app.serving.child, take_over=False)
    gate, given_up = app.gates.of(good.spec), gate
    if given_up is not None and given_up is not gate:
        await app.gates.give_up(given_up)
    app.gates.lead(gate)
    await app.serving.bring_back(good, gate, app.serving.free_side())
    app.link_current(good)


async def _resume_trial(
    app: AppContext, trial: Trial, current: Deployment | None, good: Deployment | None
) -> None:
    serving = app.serving.child is not None
    unfinished = [r for r in await app.services.journal.unfinished_runs() if r.app == app.name]
    run = sync = ""
    for record in unfinished:
        if serving and current is not None and record.spec == current.pair.spec:
            run, sync = record.id, record.sync
            await app.services.journal.close_run(record.id, RunResult.PROBATION)
        else:
            await app.services.journal.mark_interrupted(record.id)
    if serving and current is not None and (good is None or good.pair.spec != current.pair.spec):
        trial.resume(current, run, sync)
