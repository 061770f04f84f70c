"""Rollout and scale: the further instances of an app, started one after the other.

A rollout begins when the first instance of the new version is healthy. Each one that is gets its share of
the new connections, as the canary does, so that a version which does not stand them is found out by few;
the old instances stay until the new version has proved itself. Where clients wait already, because
the old version had to go first, there is nobody to be careful for, and all start at once.
"""

from __future__ import annotations

import asyncio

from agent.deploy.child import Child
from agent.deploy.instances import missing
from agent.deploy.run import Crash, RunContext, Step
from agent.domain.errors import Failure, Permanent
from agent.domain.model import PlannedStep
from agent.domain.spec import AppSpec
from agent.kit.tasks import unless
from agent.traffic.state import Mode


class Rollout(Step):
    """Starts the others of the new version. Undo gives the old version every client again."""

    kind = "rollout"
    crash = Crash.UNDO

    def deadline(self, context: RunContext) -> float:
        """What each may take to become healthy."""
        return _each(context.spec) * _count(context.spec) + 60.0

    def undo_deadline(self, context: RunContext) -> float:
        """The drain's own deadline, and a margin."""
        return context.spec.drain.deadline + 30.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure: the one of the instance that failed."""
        lead = context.child
        assert lead is not None
        if context.marked is not None:
            await context.marked
        await context.written()  # the next agent has to know these children, for they have clients
        if lead.gate is not None and lead.gate.state.mode in (Mode.OPEN, Mode.CANARY):
            await self._in_turn(context, step, lead)
        else:
            await self._at_once(context, lead)

    async def _in_turn(self, context: RunContext, step: PlannedStep, lead: Child) -> None:
        count, gate = _count(context.spec), lead.gate
        assert gate is not None
        for number in missing(context.serving, lead, count):
            share = max(100 * number // count, gate.state.percent, 1)
            context.shared = True
            if share < 100 and gate.state.mode in (Mode.OPEN, Mode.CANARY):
                await gate.canary(lead.side, share)
            context.progress(step.name, number, count, "instances")
            await _start(context, lead, number)

    async def _at_once(self, context: RunContext, lead: Child) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for number in missing(context.serving, lead, _count(context.spec)):
                    group.create_task(_start(context, lead, number), name=f"instance {number}")
        except* Failure as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None

    async def undo(self, context: RunContext) -> None:
        """Who waits at the new ones is answered there; the step `start` stops them."""
        lead = context.child
        if context.switched or lead is None or lead.gate is None or lead.gate.state.mode is not Mode.CANARY:
            return
        await lead.gate.serve(1 - lead.side)
        await lead.gate.drained(lead.side, context.spec.drain.deadline)


class Scale(Step):
    """Starts or stops instances of what serves. Undo stops those it started."""

    kind = "scale"
    crash = Crash.REDO

    def deadline(self, context: RunContext) -> float:
        """What each may take to start, or to stop."""
        old = context.old.deployment.spec if context.old is not None else context.spec
        grace = context.spec.run.stop.grace if context.spec.run is not None else 0.0
        each = _each(context.spec) + context.spec.drain.deadline + grace
        return each * max(_count(context.spec), _count(old)) + 60.0

    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Raises Failure: the one of the instance that failed."""
        context.committed = True
        serving, count = context.serving, _count(context.spec)
        lead = serving.child
        if lead is None or not lead.alive:
            return  # it is being started again, and comes with as many as are wanted then
        serving.instances.pause()
        started: list[Child] = []
        try:
            for number in missing(serving, lead, count):
                context.progress(step.name, number, count, "instances")
                started.append(await _start(context, lead, number))
            await serving.instances.dismiss(lead, count)
        except BaseException:
            for child in reversed(started):
                await serving.instances.dismiss_one(lead, child)
            serving.watch(lead)
            raise


async def _start(context: RunContext, lead: Child, number: int) -> Child:
    """Start one; if the first one ends meanwhile, that is what failed."""
    starting = context.serving.instances.start(lead, number, context.id)
    child = await unless(lead.ended, starting, name=f"instance {number}")
    gone = next((each for each in context.serving.crew(lead) if not each.alive and each.joined), None)
    if child is None or gone is not None:
        info = (gone or lead).exit_failure()
        raise Permanent(info.reason, info.message, where=info.where, remedy=info.remedy, log=info.log)
    return child


def _count(spec: AppSpec) -> int:
    return spec.run.instances if spec.run is not None else 1


def _each(spec: AppSpec) -> float:
    return spec.health.deadline + spec.health.timeout + 10.0
