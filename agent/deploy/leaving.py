"""How an app ends on this host: removed from the state, or stopped together with the agent."""

from __future__ import annotations

import asyncio
import logging

from agent.deploy.child import Child
from agent.deploy.services import AppContext
from agent.domain.errors import Failure
from agent.domain.events import AppRemoved
from agent.traffic.state import CLOSED, Gate

log = logging.getLogger(__name__)


async def remove(app: AppContext) -> None:
    """Stop the app, run its cleanup hook, release its ports; keep its releases and directories.

    Raises Failure, OSError.
    """
    gates = await _stop_children(app)
    await _clean_up(app)
    for gate in gates:
        await gate.close()
    app.gate = None
    await asyncio.to_thread(app.deployments.forget)
    app.services.bus.publish(AppRemoved(app.name))


async def stop_with_agent(app: AppContext) -> None:
    """New clients get the page until the children are stopped and the cleanup hook has run; links stay."""
    gates: list[Gate] = []
    try:
        gates = await _stop_children(app)
        await _clean_up(app)
    except (Failure, OSError) as error:  # whatever is left is the keeper's to end
        log.error("%s: not stopped in order: %s", app.name, error)
    for gate in gates:
        await gate.close()


def longest_stop(app: AppContext) -> float:
    """Seconds that stopping the app may take by what its specification says."""
    current = app.current
    if current is None:
        return 0.0
    spec = current.spec
    grace = spec.run.stop.grace if spec.run is not None else 0.0
    return spec.drain.deadline + grace + (spec.hooks.timeout if spec.hooks.cleanup else 0.0)


async def _stop_children(app: AppContext) -> list[Gate]:
    """The page for who comes, an answer for who waits, then the end of every child. Returns the gates."""
    serving = app.serving
    serving.stop_restarting()
    children = [child for child in (serving.child, serving.warm) if child is not None]
    gates = list(dict.fromkeys(g for g in (app.gate, *(child.gate for child in children)) if g is not None))
    for gate in gates:
        if gate.state != CLOSED:
            await gate.maintain()
    serving.stop_watching()
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(_stop(app, child), name=f"stop {child.id}")
    return gates


async def _stop(app: AppContext, child: Child) -> None:
    if child.alive and child.gate is not None and child.gate.state != CLOSED:
        await child.gate.drained(child.side, child.deployment.spec.drain.deadline)
    await app.serving.retire(child, take_over=False)


async def _clean_up(app: AppContext) -> None:
    current = app.current
    if current is not None:
        await app.services.processes.hook(current, "cleanup", {})
