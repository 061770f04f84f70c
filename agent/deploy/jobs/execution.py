"""One run, from the row that says it waits to the row that says how it ended, over all its attempts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.failures import as_info
from agent.deploy.jobs import attempt
from agent.deploy.jobs.attempt import End
from agent.deploy.jobs.ledger import Ledger
from agent.deploy.processes import Processes
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.events import AppFailed, Bus, ConditionChanged
from agent.domain.job import JobResult, JobRun
from agent.domain.job_events import JobEnded, JobStarted
from agent.domain.model import Condition, ConditionStatus, new_id
from agent.domain.spec import JobSpec

log = logging.getLogger(__name__)

AGAIN = 5.0  # seconds until what the journal refused is tried again
LONGEST_PAUSE = 3600.0  # seconds between two attempts


@dataclass(eq=False, slots=True)
class Active:
    """A run under way. Set `asked`, after `why`, and it is stopped."""

    run: JobRun
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Execution:
    """Carries runs of one app out. `plain`: what they say is passed on as it is."""

    def __init__(
        self,
        app: str,
        processes: Processes,
        deployments: Deployments,
        ledger: Ledger,
        bus: Bus,
        *,
        plain: bool,
    ) -> None:
        self._app = app
        self._processes = processes
        self._deployments = deployments
        self._ledger = ledger
        self._bus = bus
        self._plain = plain

    async def carry_out(self, active: Active) -> None:
        """Attempt after attempt until one succeeds or none is left; what happened is recorded and told.

        Returns when the end is on the disk. Cancelled, or when the keeper is lost, the run stays open: the
        next agent goes on with it.
        """
        try:
            while active.run.result.open:
                if active.run.result is JobResult.WAITING:
                    await self._pause(active)
                if active.run.result.open:
                    await self._attempt(active)
        except ConnectionError:
            log.info("%s: run %s is left to the next agent", self._app, active.run.id)
        finally:
            active.ended.set()

    async def _pause(self, active: Active) -> None:
        """Until the next attempt is due, or somebody wants no more of it."""
        try:
            async with asyncio.timeout(max(0.0, active.run.again - time.time())):
                await active.asked.wait()
        except TimeoutError:
            return
        await self._close(active, JobResult.STOPPED, _stopped(active.why))

    async def _attempt(self, active: Active) -> None:
        run = active.run
        deployment = self._deployments.get(run.spec) or self._deployments.linked("current")
        if deployment is None or deployment.spec.job is None:
            await self._close(active, JobResult.STOPPED, _stopped("what it belongs to is gone"))
            return
        life = await self._processes.life()
        if run.result is JobResult.RUNNING and run.life != life and not self._has(run):
            await self._failed(active, deployment.spec.job, attempt.INTERRUPTED)
            return
        if run.result is JobResult.WAITING:
            run = replace(
                run, result=JobResult.RUNNING, attempt=run.attempt + 1, life=life, again=0.0,
                child=new_id(f"{self._app}/job"), started=run.started or time.time(),
            )  # fmt: skip
            await self._recorded(active, run)
        try:
            end = await self._through(active, deployment)
        except ConnectionError:  # the keeper is lost, and the agent with it
            raise
        except Exception as error:  # whatever it is, the run has an end that is recorded
            end = End(None, None, as_info(error, " ".join(deployment.spec.job.command[:1])))
        active.run = replace(active.run, code=end.code, signal=end.signal)
        if end.failure is None:
            await self._close(active, JobResult.SUCCEEDED, None, end.lines)
        elif end.stopped:
            await self._close(active, JobResult.STOPPED, _stopped(active.why), end.lines)
        else:
            await self._failed(active, deployment.spec.job, end.failure, end.lines)

    def _has(self, run: JobRun) -> bool:
        return run.child in self._processes.keeper.children

    async def _through(self, active: Active, deployment: Deployment) -> End:
        """One attempt. Raises Failure, OSError."""
        run = active.run
        await attempt.begin(self._processes, deployment, run, plain=self._plain)
        pid = self._processes.keeper.children[run.child].pid
        self._bus.publish(JobStarted(self._app, run.id, run.cause, run.attempt, pid, run.due))
        return await attempt.until_end(self._processes, deployment, run, active.asked)

    async def _failed(
        self, active: Active, job: JobSpec, failure: FailureInfo, lines: Sequence[str] = ()
    ) -> None:
        run = active.run
        if run.attempt > job.retries or active.asked.is_set():
            lost = failure is attempt.INTERRUPTED
            await self._close(active, JobResult.INTERRUPTED if lost else JobResult.FAILED, failure, lines)
            return
        pause = min(LONGEST_PAUSE, job.backoff * 2.0 ** (run.attempt - 1))
        log.warning("%s: run %s: %s; again in %.1f s", self._app, run.id, failure.message, pause)
        again = replace(run, result=JobResult.WAITING, again=time.time() + pause, failure=failure)
        await self._recorded(active, again, lines)
        await attempt.forget(self._processes, run.child)

    async def _close(
        self, active: Active, result: JobResult, failure: FailureInfo | None, lines: Sequence[str] = ()
    ) -> None:
        """The end of the run: first on the disk, then the child is forgotten, then it is told."""
        child = active.run.child
        run = replace(active.run, result=result, failure=failure, ended=time.time(), again=0.0)
        await self._recorded(active, run, lines)
        if child:
            await attempt.forget(self._processes, child)
        seconds = run.ended - run.started if run.started else 0.0
        self._bus.publish(JobEnded(self._app, run, seconds))
        if result is JobResult.STOPPED:
            return
        if failure is not None:
            self._bus.publish(AppFailed(self._app, failure))
        status = ConditionStatus.FALSE if failure is None else ConditionStatus.TRUE
        reason, message = ("JobSucceeded", "") if failure is None else (failure.reason, failure.message)
        condition = Condition("JobFailing", status, reason, message, time.time())
        self._bus.publish(ConditionChanged(self._app, condition))

    async def _recorded(self, active: Active, run: JobRun, lines: Sequence[str] = ()) -> None:
        """Write a row, again and again until the disk takes it: nothing goes on without."""
        while True:
            try:
                await self._ledger.save(self._app, run, output=lines)
            except Failure as error:
                self._bus.publish(AppFailed(self._app, error.info))
                await asyncio.sleep(AGAIN)
            else:
                active.run = run
                return


def _stopped(why: str) -> FailureInfo:
    return FailureInfo(FailureKind.OPERATOR, "JobStopped", why or "it was stopped", where="")
