"""The runs of one app that is a job: what is due, asked for or under way, and that no update is in between.

One task looks at the clock; each run has its own. Both write to the ledger before they do anything, so the
next agent goes on where this one ends: a run whose child the keeper still has is waited for, one that had
not begun begins, due times for which nobody was there are counted as missed, and as the policy says one run
makes up for them.

    running free --rest--> held, runs under way end --resume--> running free
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.failures import as_info
from agent.deploy.jobs import attempt
from agent.deploy.jobs.due import Due, becomes, due, upcoming
from agent.deploy.jobs.execution import AGAIN, LONGEST_PAUSE, Active, Execution
from agent.deploy.jobs.ledger import Ledger
from agent.deploy.processes import Processes
from agent.domain.control import NotPossible
from agent.domain.events import AppFailed, Bus
from agent.domain.job import Cause, JobResult, JobRun, JobStanding
from agent.domain.job_events import JobEnded, JobPassed, JobPlanned
from agent.domain.model import new_id
from agent.domain.spec import JobSpec
from agent.kit.tasks import Owned
from agent.process.keepers import Keeper

log = logging.getLogger(__name__)

LOOK = 60.0  # seconds between two looks at the clock, which may be set meanwhile
WORKING = "has not run yet"  # but is about to, or does
SET_BACK = 3 * 3600.0  # seconds by which a clock may be set back and nothing be run twice


class Jobs:
    """See the module.

    Args:
        app: the app's name.
        processes: starts and ends programs.
        deployments: what is released; a run goes on with what it began with.
        ledger: where runs are recorded.
        bus: where facts are told.
        by_itself: whether schedule and releases start runs; otherwise only who asks does.
    """

    def __init__(
        self,
        app: str,
        processes: Processes,
        deployments: Deployments,
        ledger: Ledger,
        bus: Bus,
        *,
        by_itself: bool = True,
    ) -> None:
        self.app = app
        self.changed: Callable[[], None] = lambda: None
        self._processes = processes
        self._deployments = deployments
        self._ledger = ledger
        self._bus = bus
        self._by_itself = by_itself
        self._execution = Execution(app, processes, deployments, ledger, bus, plain=not by_itself)
        self._tasks = Owned(f"{app}/jobs")
        self._active: dict[str, Active] = {}
        self._lock = asyncio.Lock()  # between deciding that a run begins, and its being under way
        self._held = ""  # why no run may begin
        self._wake = asyncio.Event()
        self._skipped: JobRun | None = None  # the newest row, if it counts what was skipped
        self._planned: tuple[object, ...] = ()

    @property
    def working(self) -> bool:
        """Whether a run is under way."""
        return bool(self._active)

    @property
    def _keeper(self) -> Keeper:
        return self._processes.keeper

    def longest(self) -> float:
        """Seconds that a run may take, with all its attempts."""
        found = 0.0
        under_way = [self._deployments.get(active.run.spec) for active in self._active.values()]
        for deployment in (self._current(), *under_way):
            if deployment is not None and (job := deployment.spec.job) is not None:
                pauses = sum(min(LONGEST_PAUSE, job.backoff * 2.0**number) for number in range(job.retries))
                found = max(found, (job.timeout + job.stop.grace) * (job.retries + 1) + pauses)
        return found

    def owes(self) -> str:
        """What who needs this job has to wait for: the run after its release; "" when that is done."""
        deployment = self._current()
        job = deployment.spec.job if deployment is not None else None
        if deployment is None or job is None or not job.after_release or not self._by_itself:
            return ""
        last, spec = self._ledger.last(self.app), deployment.pair.spec
        if last is not None and last.spec == spec and last.result is JobResult.SUCCEEDED:
            return ""
        standing = self._ledger.standing(self.app)
        if self._active or standing is None or standing.released != spec:
            return WORKING
        return "did not succeed when it ran last"

    def instances(self) -> set[Path]:
        """Where attempts that the keeper has live."""
        return {Path(note.instance) for note in attempt.notes(self._keeper, self.app).values()}

    # -- life --------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Go on with what an earlier agent began, and look at the clock from now on."""
        opened = self._ledger.open(self.app)
        if (last := self._ledger.last(self.app)) is not None:
            self._bus.publish(JobEnded(self.app, last, 0.0, earlier=True))
        known = {run.child for run in opened}
        for child in set(attempt.notes(self._keeper, self.app)) - known:
            await attempt.forget(self._processes, child)  # its end is recorded
        for run in opened:
            self._start(run)
        self._tasks.start(self._watch(), name="clock")

    async def aclose(self) -> None:
        """Look after nothing any more; the programs themselves go on."""
        await self._tasks.aclose()

    def wake(self) -> None:
        """Another deployment may be current."""
        self._wake.set()

    async def rest(self, why: str) -> None:
        """Let no run begin until `resume`, and wait for those under way. Cancelled, it still holds."""
        async with self._lock:
            self._held = why
        for active in list(self._active.values()):
            await active.ended.wait()

    def resume(self) -> None:
        """Runs may begin again."""
        self._held = ""
        self.wake()

    async def end(self, why: str) -> None:
        """Stop every run, and record why; none begins until `resume`."""
        async with self._lock:
            self._held = why
        for active in list(self._active.values()):
            active.why = why
            active.asked.set()
        for active in list(self._active.values()):
            await active.ended.wait()

    async def forget(self) -> None:
        """The app is gone. Raises OperatorNeeded."""
        await self._ledger.forget(self.app)
        self._planned = ()

    # -- asking ------------------------------------------------------------------------------------

    async def ask(self, cause: Cause, by: str, parameters: Mapping[str, str]) -> JobRun:
        """Begin a run now. Raises NotPossible, and OperatorNeeded when it cannot be recorded."""
        async with self._lock:
            deployment = self._current()
            if deployment is None or deployment.spec.job is None:
                raise NotPossible(f"{self.app} has no job that is released here")
            job = deployment.spec.job
            unknown = sorted(set(parameters) - set(job.parameters))
            if unknown:
                there = ", ".join(job.parameters) or "none"
                raise NotPossible(f"{self.app} has no parameter {unknown[0]!r}; there are: {there}")
            if self._held:
                raise NotPossible(f"{self._held}; ask again when that has ended")
            if self._active and not job.overlap:
                one = next(iter(self._active))
                raise NotPossible(f"run {one} of {self.app} is under way, and overlap is not allowed")
            run = self._new(deployment, cause, by=by, parameters={**job.parameters, **parameters})
            await self._ledger.save(self.app, run)
            self._start(run)
            return run

    async def stop(self, by: str) -> None:
        """End the runs under way. Raises NotPossible when there is none."""
        if not self._active:
            raise NotPossible(f"no run of {self.app} is under way")
        for active in self._active.values():
            active.why = f"{by} stopped it"
            active.asked.set()

    def _start(self, run: JobRun) -> None:
        """Carry a run out whose row is written."""
        active = self._active[run.id] = Active(run)
        self._tasks.start(self._carry_out(active), name=run.id)
        self.changed()

    async def _carry_out(self, active: Active) -> None:
        try:
            await self._execution.carry_out(active)
        finally:
            del self._active[active.run.id]
            self.changed()

    async def ended(self, run: str) -> None:
        """Wait for the end of a run; at once when it is not under way."""
        if (active := self._active.get(run)) is not None:
            await active.ended.wait()

    # -- the clock ---------------------------------------------------------------------------------

    async def _watch(self) -> NoReturn:
        while True:
            self._wake.clear()
            try:
                async with self._lock:
                    pause = await self._look(time.time())
            except Exception as error:  # whatever it is, it must not end the schedule
                self._skipped = None  # what was to be counted may not have been written
                self._bus.publish(AppFailed(self.app, as_info(error, "the job's schedule")))
                pause = AGAIN
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self, now: float) -> float | None:
        """Record and begin what is due; returns the seconds until the next look. Raises OperatorNeeded."""
        deployment = self._current()
        job = deployment.spec.job if deployment is not None else None
        if deployment is None or job is None or not self._by_itself:
            if self._planned:
                self._planned = ()
                self._bus.publish(JobPlanned(self.app, "", "", 0.0, gone=True))
            return None
        standing = self._standing(job, now)
        anew = standing.accounted == now
        rows: list[JobRun] = []
        if job.after_release and standing.released != deployment.pair.spec and not self._held:
            standing = replace(standing, released=deployment.pair.spec)
            rows.append(self._new(deployment, Cause.RELEASE))
        if not self._held and (found := due(job, standing.accounted, now)) is not None:
            standing = replace(standing, accounted=found.latest)
            rows += self._due(deployment, job, found, now, busy=bool(self._active or rows))
        if standing != self._ledger.standing(self.app):
            await self._ledger.save(self.app, *rows, standing=standing, anew=now if anew else None)
        for run in rows:
            self._tell_row(run)
        following = upcoming(job, standing.accounted, now)
        self._tell_plan(job, following)
        return None if following is None or self._held else max(0.0, min(LOOK, following - time.time()))

    def _standing(self, job: JobSpec, now: float) -> JobStanding:
        """What is accounted for; a new schedule begins now, and so does one of a clock that was wrong."""
        standing = self._ledger.standing(self.app)
        schedule = f"{job.schedule} {job.time_zone}" if job.schedule else ""
        if standing is not None and standing.accounted > now + SET_BACK:
            log.warning("%s: the clock was set back; its schedule begins anew", self.app)
            standing = replace(standing, accounted=now)
        if standing is None or standing.schedule != schedule:
            return JobStanding(now, schedule, standing.released if standing is not None else "")
        return standing

    def _due(
        self, deployment: Deployment, job: JobSpec, found: Due, now: float, *, busy: bool
    ) -> list[JobRun]:
        """The rows for times that have come: what was missed, and the run for the newest, if it has one."""
        rows = []
        if found.earlier:
            row = self._new(deployment, Cause.SCHEDULE, JobResult.MISSED, due=found.first)
            rows.append(replace(row, until=found.before, count=found.earlier))
        result = becomes(job, found, now, busy=busy)
        newest = self._new(deployment, Cause.SCHEDULE, result, due=found.latest)
        before = self._skipped
        if result is JobResult.SKIPPED and before is not None and not rows:  # a count goes on
            newest = replace(before, until=found.latest, count=before.count + 1)
        self._skipped = newest if result is JobResult.SKIPPED else None
        return [*rows, newest]

    def _tell_row(self, run: JobRun) -> None:
        if run.result is JobResult.WAITING:
            self._start(run)
            return
        count = 1 if run.result is JobResult.SKIPPED else run.count
        self._bus.publish(JobPassed(self.app, run.result, count, run.due, run.until or run.due))

    def _tell_plan(self, job: JobSpec, following: float | None) -> None:
        plan = (job.schedule, job.time_zone, following)
        if plan != self._planned:
            self._planned = plan
            self._bus.publish(JobPlanned(self.app, job.schedule, job.time_zone, following or 0.0))

    def _current(self) -> Deployment | None:
        return self._deployments.linked("current")

    def _new(
        self,
        deployment: Deployment,
        cause: Cause,
        result: JobResult = JobResult.WAITING,
        *,
        due: float = 0.0,
        by: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> JobRun:
        job, pair = deployment.spec.job, deployment.pair
        assert job is not None
        return JobRun(
            id=new_id("job"), app=self.app, cause=cause, result=result, due=due, spec=pair.spec,
            version=pair.version, commit=pair.commit, by=by, created=time.time(),
            parameters=dict(job.parameters if parameters is None else parameters),
        )  # fmt: skip
