"""How children leave: seen off by their successors, removed with their app, stopped with the agent."""

from __future__ import annotations

import asyncio
import logging

from agent.deploy.child import Child
from agent.deploy.failures import as_info
from agent.deploy.services import AS_WANTED, AppContext
from agent.domain.events import AppRemoved
from agent.kit.files import remove_tree
from agent.traffic.state import CLOSED, Gate

log = logging.getLogger(__name__)


async def see_off(app: AppContext, child: Child, wanted: Gate | None = None) -> None:
    """Retire a child that serves no more, who waits for it first; ports that only it had are given up.

    `wanted` is a gate that stays although it is not the main one. One that is taken back meanwhile, because
    its successor went bad, stays.
    """
    gate, child.taken_back = child.gate, False
    if gate is not None and gate.state != CLOSED:
        if gate.state.side == child.side:  # its ports are not its successor's: late clients get the page
            await gate.maintain()
        if child.alive:
            await gate.drained(child.side, child.deployment.spec.drain.deadline)
    if child.taken_back:
        return
    await app.serving.retire(child)
    if gate is not None and gate not in (app.gates.main, wanted):
        await app.gates.give_up(gate)


async def remove(app: AppContext) -> None:
    """Stop the app, run its cleanup hook, release its ports, take its places and its cache away.

    Its releases and other directories stay.

    Raises Failure, OSError.
    """
    await app.jobs.end("its app was removed")
    try:
        await _stop_children(app)
        await _clean_up(app)
        await _give_up_ports(app)
        places = app.services.processes.surroundings.places(app.name)
        await asyncio.to_thread(places.settle, ())
        await app.jobs.forget()
        await asyncio.to_thread(remove_tree, app.directory.dirs / "cache")
        await asyncio.to_thread(app.deployments.forget)  # last: until then the next agent knows of the app
    finally:
        app.jobs.resume()
    app.services.bus.publish(AppRemoved(app.name))


async def stop_with_agent(app: AppContext) -> None:
    """New clients get the page until the children are stopped and the cleanup hook has run; links stay.

    Whatever goes wrong, the rest is done; who is left is the keeper's to end.
    """
    for step in (_stop_jobs, _stop_children, _clean_up, _give_up_ports):
        try:
            await step(app)
        except Exception as error:
            log.error("%s: not stopped in order: %s", app.name, as_info(error, app.name))


def longest_stop(app: AppContext) -> float:
    """Seconds that stopping the app may take by what its specification says."""
    current = app.current
    if current is None:
        return 0.0
    spec = current.spec
    program = spec.run or spec.job
    grace = program.stop.grace if program is not None else 0.0
    return spec.drain.deadline + grace + (spec.hooks.timeout if spec.hooks.cleanup else 0.0)


def tell_grace(app: AppContext) -> None:
    """Tell where the platform may kill before the app has been stopped in order."""
    longest, room = longest_stop(app), app.services.stop_room
    if longest < room:
        app.condition("GraceShort", False, AS_WANTED)
        return
    told = (
        f"drain, stop and cleanup may take {longest:g} s, --grace-period leaves {max(0.0, room):g} s for them"
    )
    app.condition("GraceShort", True, "EndTooLong", told)


async def _stop_jobs(app: AppContext) -> None:
    await app.jobs.end("the agent was stopped")


async def _stop_children(app: AppContext) -> None:
    """The page for who comes, an answer for who waits, then the end of every child."""
    serving = app.serving
    await serving.stop_restarting()
    for gate in app.gates.all():
        if gate.state != CLOSED:
            await gate.maintain()
    serving.stop_watching()
    async with asyncio.TaskGroup() as group:
        for child in serving.everyone():
            child.expected = True  # who ends by itself from now on is not started again
            group.create_task(_stop(app, child), name=f"stop {child.id}")


async def _stop(app: AppContext, child: Child) -> None:
    if child.alive and child.gate is not None and child.gate.state != CLOSED:
        await child.gate.drained(child.side, child.deployment.spec.drain.deadline)
    await app.serving.retire_one(child, take_over=False)


async def _clean_up(app: AppContext) -> None:
    current = app.current
    if current is not None:
        await app.services.processes.hook(current, "cleanup", {})


async def _give_up_ports(app: AppContext) -> None:
    await app.gates.only()
