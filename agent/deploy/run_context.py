"""What a plan and a run begin with: how things stand, and the gate, the side and the old child."""

from __future__ import annotations

import logging

from agent.deploy.data import contracts, way_to
from agent.deploy.differences import same_ports
from agent.deploy.leaving import see_off
from agent.deploy.planner import Situation
from agent.deploy.run import RunContext
from agent.deploy.services import AppContext
from agent.deploy.wish import Wish
from agent.domain.errors import Failure
from agent.domain.model import Plan
from agent.domain.spec import AppSpec, Swap
from agent.kit.tasks import Owned
from agent.process.memory import shortage

log = logging.getLogger(__name__)


def situation(app: AppContext, spec: AppSpec, release: str, wish: Wish | None = None) -> Situation:
    """What the planner has to know about an app now, for a wish or for a look ahead."""
    current = app.current
    by_hand = wish is not None and wish.rollback
    way_back = wish is not None and not wish.newest
    artifact, here = spec.artifact, bool(release) and app.services.store.has(release)
    if here and artifact is not None and not by_hand:  # the way back needs no network, whatever changed since
        here = app.services.artifacts.ready(artifact, release)
    return Situation(
        current=current.spec if current else None,
        alive=app.serving.child is not None or app.serving.restarting or app.placed,
        in_store=here,
        signatures="" if artifact is None else app.services.artifacts.signatures.asked(artifact),
        quarantined=None if way_back else app.quarantined(spec),
        paused=None if by_hand else app.services.paused(),
        frozen=_frozen(app, wish),
        prepared=app.prepared == spec.digest,
        gate_conflict=current is not None and ports_conflict(current.spec, spec),
        memory_short=_memory_short(app, spec),
        comparable=not way_back and app.unhealthy is None and not app.serving.restarting,
        first=current is None,
        drifted=wish.drifted if wish is not None else (),
        contracts=contracts(app, spec),
        downs=way_to(app, spec, release, back=way_back).downs,
    )


def _frozen(app: AppContext, wish: Wish | None) -> str | None:
    """The freeze that holds a wish up; None when there is none, or somebody goes through it."""
    if wish is not None and (wish.rollback or wish.override):
        return None
    now = app.services.frozen()
    return str(now) if now is not None else None


def _memory_short(app: AppContext, spec: AppSpec) -> str:
    """Why a second child would not fit beside the one that serves; "" when it does, or none is wanted."""
    child = app.serving.child
    two = child is not None and child.alive and spec.swap is Swap.OVERLAP
    if child is None or not two or spec.run is None:
        return ""
    return shortage(child.pid, count=spec.run.instances)


def run_context(
    app: AppContext, wish: Wish, spec: AppSpec, release: str, plan: Plan, tasks: Owned
) -> RunContext:
    """Put the context of one run together; a warm predecessor on the new child's side begins to stop."""
    serving, services = app.serving, app.services
    gate = app.gates.of(spec)
    if gate is not None:
        gate.configure(spec.maintenance)
    context = RunContext(
        sync=wish.sync,
        spec=spec,
        commit=wish.commit,
        signer=wish.signer,
        artifact_signer="" if spec.artifact is None else services.artifacts.signatures.signers(spec.artifact),
        plan=plan,
        release=release,
        directory=app.directory,
        deployments=app.deployments,
        artifacts=services.artifacts,
        processes=services.processes,
        serving=serving,
        gate=gate,
        canary=app.canary,
        jobs=app.jobs,
        gates=app.gates,
        journal=services.journal,
        bus=services.bus,
        first=app.current is None,
        ready=services.ready,
        condition=app.condition,
        timeout=services.standstill.timeout,
        side=serving.free_side(),
        old=serving.child,
    )
    short = next(
        (str(step.options.get("memory_short", "")) for step in plan.steps if step.kind == "stop"), ""
    )
    if short or app.memory_short:
        app.condition("MemoryShort", bool(short), "NoRoomForTwo" if short else "RoomForTwo", short)
        app.memory_short = short
    context.stack.enter_context(services.store.using(release))  # a tidying must not take it away
    if any(step.kind == "start" for step in plan.steps):
        tasks.start(_begin_clearing(app, context), name="clear side")
    return context


async def _begin_clearing(app: AppContext, context: RunContext) -> None:
    """While the run prepares; the step `start` waits for the end of it, and tells what goes wrong."""
    try:
        for child in context.serving.leaders(context.side):
            await see_off(app, child, context.gate)
    except (Failure, OSError) as error:
        log.warning("%s: %s", context.app, error)


def ports_conflict(old: AppSpec, new: AppSpec) -> bool:
    """Whether the wanted ports cannot be opened while the old child has its own."""
    if same_ports(old, new):
        return False
    return bool({p.port for p in old.listen} & {p.port for p in new.listen})
