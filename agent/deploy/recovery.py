"""After a restart: bring links, gate, children and journal in line, the links being the truth.

| found | done |
|---|---|
| the keeper still has the child that the gate is open to | it goes on; `current` is brought in line |
| ... and the good pair's child beside it | kept warm, probation starts again |
| any other child of the app | stopped |
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
from agent.deploy.processes import FoundChild
from agent.deploy.services import AppContext
from agent.deploy.trial import Trial
from agent.domain.errors import Failure
from agent.domain.events import ChildStarted, PairCurrent, PairGood
from agent.domain.model import RunResult
from agent.traffic.state import Gate, Mode

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
    gate = app.services.make_gate(children[0].deployment.spec) if children else None
    if gate is not None:
        await gate.open_ports()
        app.gate = gate
        for child in children:
            child.gate = gate
    chosen = _choose(children, _open_side(gate), current)
    if chosen is not None and gate is not None and _open_side(gate) is None:
        await gate.serve(chosen.side)  # the agent died while it held the port; the child never stopped
    for child in children:
        app.services.bus.publish(ChildStarted(app.name, child.id, child.pid))
        if child is chosen:
            app.serving.child = child
            app.serving.look_after(child)
            app.serving.watch(child)
        elif chosen is not None and app.good is not None and child.deployment.pair.spec == app.good.pair.spec:
            app.serving.warm = child
            app.serving.look_after(child)
        else:
            log.info("%s: child %s of an interrupted run is stopped", app.name, child.id)
            app.serving.look_after(child)
            await app.serving.retire(child, take_over=False)
    known = {child.id for child in children}
    for record in found:
        if record.id not in known:
            await app.services.processes.end(record.id)
    return chosen


def _open_side(gate: Gate | None) -> int | None:
    return gate.state.side if gate is not None and gate.state.mode is Mode.OPEN else None


def _choose(children: list[Child], open_side: int | None, current: Deployment | None) -> Child | None:
    if open_side is not None:
        return next((c for c in children if c.side == open_side), None)
    if current is not None:
        return next((c for c in children if c.deployment.pair.spec == current.pair.spec), None)
    return None


def _as_child(app: AppContext, found: FoundChild) -> Child | None:
    if not found.running:
        return None
    deployment = app.deployments.get(found.note.spec)
    if deployment is None:
        return None
    return Child(found.id, found.pid, found.note.side, deployment, Path(found.note.instance), None)


async def _start(app: AppContext, current: Deployment, good: Deployment | None) -> None:
    """A cold start from disk; a current pair that does not come up gives way to the good one."""
    gate = app.services.make_gate(current.spec)
    if gate is not None:
        await gate.open_ports()
    app.gate = gate
    try:
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
