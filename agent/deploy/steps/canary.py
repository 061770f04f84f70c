"""Canary: a share of the new connections for the new child, before it gets all of them.

It passes when its time is over, when an operator promotes it, or when the old version ends or sickens
while the new one is healthy. It fails when the new child ends, when `failures` probes in a row fail, or
when an operator aborts it. Nothing irreversible happens in it: unless this run had a migration, a newer
specification may cancel it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agent.deploy.child import Child
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.errors import FailureInfo, Permanent
from agent.domain.model import PlannedStep
from agent.kit.tasks import unless
from agent.traffic.state import Mode

TELLINGS = 100  # how often its progress is told at most, and no more than once a second


class CanaryStep(Step):
    """Shares the clients and watches. Undo gives the old child all of them again."""

    kind = "canary"
    crash = Crash.UNDO

    def deadline(self, context: RunContext) -> float:
        """Its own time, and a margin."""
        return (context.spec.canary.duration if context.spec.canary is not None else 0.0) + 60.0

    def undo_deadline(self, context: RunContext) -> float:
        """The drain's own deadline, and a margin."""
        return context.spec.drain.deadline + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Permanent("CanaryFailed" | "OperatorAbort") with the child's last lines, OSError."""
        wanted, child, gate = context.spec.canary, context.child, context.gate
        assert wanted is not None
        assert child is not None
        assert gate is not None
        if context.marked is not None:
            await context.marked
        await context.written()  # the next agent has to know this child, for it has clients
        if gate.state.mode is not Mode.OPEN:
            return  # what served has ended meanwhile: nothing to compare with, and clients wait
        context.journal.mark(context.id, "canary", detail=f"{wanted.percent} %")
        context.committed = any(planned.kind == "migrate" for planned in context.plan.steps)
        context.shared = True
        await gate.canary(child.side, wanted.percent)
        context.canary.begin(context.id, context.sync)
        try:
            failure = await self._watched(context, step, child)
        finally:
            context.committed = True
            context.canary.end()
        if failure is not None:
            raise Permanent(
                failure.reason,
                failure.message,
                where=failure.where,
                remedy=failure.remedy,
                log=failure.log or tuple(await context.processes.tail(child)),
            )

    async def _watched(self, context: RunContext, step: PlannedStep, child: Child) -> FailureInfo | None:
        """Why it failed, or None when it passed."""
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(_time(context, step), name="canary time"),
                group.create_task(_end(context, child), name="canary end"),
                group.create_task(_probes(context, child), name="canary probes"),
                group.create_task(_old(context, child), name="canary old"),
            ]
            failure = await context.canary.decided()
            for watcher in watchers:
                watcher.cancel()
        return failure

    async def undo(self, context: RunContext) -> None:
        """The old child gets every new connection; who waits at the new one is answered there."""
        child, gate = context.child, context.gate
        if context.switched or child is None or gate is None or gate.state.mode is not Mode.CANARY:
            return
        await gate.serve(1 - child.side)
        if child.alive:
            await unless(
                child.ended, gate.drained(child.side, context.spec.drain.deadline), name="drain canary"
            )


async def _time(context: RunContext, step: PlannedStep) -> None:
    """Tell how far it is, and let it pass when its time is over."""
    assert context.spec.canary is not None
    duration, loop = context.spec.canary.duration, asyncio.get_running_loop()
    began, pause = loop.time(), max(1.0, duration / TELLINGS)
    while (passed := loop.time() - began) < duration:
        context.progress(step.name, int(passed), int(duration), "seconds")
        await asyncio.sleep(min(pause, duration - passed))
    context.canary.passed()


async def _end(context: RunContext, child: Child) -> None:
    await child.ended.wait()
    context.canary.failed(_told(context, child.exit_failure()))


async def _probes(context: RunContext, child: Child) -> None:
    assert context.spec.canary is not None
    async for failure in context.processes.watch(child, context.spec.canary.duration):
        if failure is not None:
            context.canary.failed(_told(context, failure))


async def _old(context: RunContext, child: Child) -> None:
    """When what served fails, the better version is the one that does not."""
    old = context.old
    if old is None:
        return
    await unless(old.ended, context.canary.sick.wait(), name="old version")
    if await context.processes.healthy_now(child):
        context.canary.passed()


def _told(context: RunContext, failure: FailureInfo) -> FailureInfo:
    assert context.spec.canary is not None
    message = f"with {context.spec.canary.percent} % of new connections: {failure.reason}: {failure.message}"
    return replace(failure, reason="CanaryFailed", message=message)
