"""Probation: the watched time after a switch, and the way back when it goes bad.

    none --begin--> on trial --time over, well---> proven: `good` moves, the warm predecessor retires
                     |  ^   +--newer release switched--> superseded: `good` stays
                     |  +------- the good pair fails too: nobody is to blame, the time begins anew
                     +--crash, unhealthy--> verdict --> rolled back: flip to the warm predecessor,
                                                        or start the last good pair again, after the down
                                                        of reversible migrations if that may run
                                                   --> kept, and watched anew: the data are not the good
                                                        pair's any more (RollbackBlocked)
                                                   --> given up, when nothing good is on disk

The timer and the watchers only leave word; the lane calls `prove` and `roll_back`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.going_back import GoingBack
from agent.deploy.leaving import see_off
from agent.deploy.on_trial import OnTrial
from agent.deploy.run import RunContext
from agent.deploy.services import AS_WANTED, AppContext
from agent.deploy.unfinished import Unfinished
from agent.deploy.way_back import REMEDY, SCHEMA_TOO_NEW, WayBack
from agent.deploy.wish import Wish
from agent.domain.errors import Failure, FailureInfo
from agent.domain.events import RunFinished
from agent.domain.model import RunResult, SyncResult
from agent.kit.tasks import Owned

log = logging.getLogger(__name__)

FIRST_CRASHES = 3  # crashes on probation before a first release, with nothing to go back to, is given up
AGAIN = 5.0  # seconds until what a disk or the environment did not allow is tried again


class Trial:
    """Probation of one app's releases."""

    def __init__(self, app: AppContext, wake: Callable[[], None]) -> None:
        self.app = app
        self.verdict: FailureInfo | None = None
        self.due = False
        self._on: OnTrial | None = None
        self._wake = wake
        self._tasks = Owned(f"{app.name}/trial")
        self._timer: asyncio.Task[None] | None = None
        self._back = GoingBack(app, self._begin_retiring)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()
        await self.app.serving.aclose()

    @property
    def running(self) -> bool:
        """Whether a release is on probation."""
        return self._on is not None

    def waits_for(self, digest: str) -> bool:
        """Whether the release on probation is of this specification."""
        return self._on is not None and self._on.deployment.spec.digest == digest

    def join(self, wish: Wish) -> None:
        """Another sync wants what is on probation: it gets the same last word."""
        if self._on is not None:
            self._on.joined.append(wish)

    async def begin(self, context: RunContext, wish: Wish, result: RunResult) -> None:
        """A run switched. Without probation the release is good at once."""
        assert context.deployment is not None
        self.end()
        self.app.recovered()
        self._on = OnTrial(context.id, wish, context.deployment)
        if result is RunResult.SUCCEEDED:
            await self.prove()
        else:
            wish.settle(SyncResult.PROBATION)
            self._start_timer(context.spec.health.probation)
            serving = self.app.serving
            if serving.child is not None and serving.instances.illness is not None:
                self.unhealthy(serving.child, serving.instances.illness)  # since the switch, while it drained

    def resume(self, deployment: Deployment, run: str, wish: Wish) -> None:
        """After a restart of the agent: watch for the whole time again."""
        self._on = OnTrial(run, wish, deployment)
        self._start_timer(deployment.spec.health.probation)

    def end(self) -> None:
        """The release on probation was superseded or removed: its last word is neither good nor bad."""
        trial = self._end()
        if trial is not None:
            self._close(trial, RunResult.SUPERSEDED, None)
            trial.settle(SyncResult.SUPERSEDED)

    def _end(self) -> OnTrial | None:
        if self._timer is not None:
            self._timer.cancel()
        trial, self._on, self._timer = self._on, None, None
        self.verdict, self.due = None, False
        return trial

    def _start_timer(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            self.due = True
            self._wake()

        if self._timer is not None:
            self._timer.cancel()
        self.due = False
        self._timer = self._tasks.start(wait(), name="probation")

    # -- verdicts ----------------------------------------------------------------------------------

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """Whether a crash is a verdict: with a good pair to go back to, the first one is.

        Without one, the third is. A release that proved itself before is only started again.
        """
        trial = self._on
        if trial is None or child is not self.app.serving.child:
            return False
        trial.crashes += 1
        if not self._can_go_back() and (self.app.good is not None or trial.crashes < FIRST_CRASHES):
            return False
        self._bad(failure)
        return True

    def unhealthy(self, child: Child, failure: FailureInfo) -> None:
        """Failed probes on probation are a verdict, unless the release proved itself before."""
        serves = self._on is not None and child is self.app.serving.child
        if serves and (self._can_go_back() or self.app.good is None):
            self._bad(failure)

    def recovered(self) -> None:
        """The serving child is healthy again: nothing is wrong with what it depends on any more."""
        self.app.condition("EnvironmentFailing", False, "Probed")

    def _bad(self, failure: FailureInfo) -> None:
        if self.verdict is None:
            self.verdict = failure
            self._wake()

    def _can_go_back(self) -> bool:
        good = self.app.good
        return good is not None and self._on is not None and good.pair.spec != self._on.deployment.pair.spec

    async def prove(self) -> None:
        """The time is over. A release that is well now is good, and its predecessor may go."""
        self.due = False
        trial = self._on
        if trial is None:
            return
        ill = await self._illness()
        if ill is not None:
            self._start_timer(max(trial.deployment.spec.health.probation, AGAIN))
            if self._can_go_back() or self.app.good is None:
                self._bad(ill)
            return
        try:
            await self._record(trial)
        except OSError as error:
            self.app.failed(as_info(error, "good"), trial.run)
            self._start_timer(AGAIN)
            return
        self._end()
        await self.app.services.journal.safely(self.app.services.journal.mark, trial.run, "retire")
        self._close(trial, RunResult.SUCCEEDED, None)
        trial.settle(SyncResult.SUCCEEDED)
        self.app.condition("EnvironmentFailing", False, "Proven")
        self.app.condition("RollbackBlocked", False, AS_WANTED)
        await self._tidy()

    async def _illness(self) -> FailureInfo | None:
        """Why a release whose time is over has not stood it after all."""
        child, unhealthy = self.app.serving.child, self.app.unhealthy
        if child is not None and not child.alive:
            return child.exit_failure()
        if unhealthy is None or child is None:
            return unhealthy
        for each in self.app.serving.serving_crew(child):
            if not await self.app.services.processes.healthy_now(each):
                return self.app.unhealthy
        return None

    async def _record(self, trial: OnTrial) -> None:
        current = self.app.current
        if current is None or current.pair.spec != trial.deployment.pair.spec:  # the switch could not
            await self.app.link_current(trial.deployment)
        await self.app.prove(trial.deployment)

    async def _tidy(self) -> None:
        """Remove what no longer has to be at hand: beside what follows, where it may take its time."""
        if self.app.serving.warm is not None:
            self._tasks.start(self._retire(self.app.serving.warm), name="retire")
        current = self.app.current
        keep = {d.pair.spec for d in (current, self.app.good) if d is not None}
        try:
            await asyncio.to_thread(
                self.app.deployments.retain, current.spec.keep if current is not None else 3, keep
            )
        except OSError as error:
            log.warning("%s: old deployments stay: %s", self.app.name, error)
        self._tasks.start(self.app.services.collect(), name="collect")

    def _begin_retiring(self, child: Child) -> None:
        self._tasks.start(self._retire(child), name="retire bad")

    async def _retire(self, child: Child) -> None:
        try:
            await see_off(self.app, child)
        except (Failure, OSError) as error:
            self.app.failed(as_info(error, child.id))

    def _close(self, trial: OnTrial, result: RunResult, failure: FailureInfo | None) -> None:
        if not trial.run:
            return
        seconds = time.monotonic() - trial.began
        self.app.services.journal.close_run(trial.run, result, failure)
        self.app.services.bus.publish(
            RunFinished(trial.run, trial.wish.sync, self.app.name, result, seconds, failure)
        )

    # -- the way back ------------------------------------------------------------------------------

    async def roll_back(self) -> Wish | None:
        """Go back from the release on probation. Returns its wish when there is no way back."""
        failure, trial = self.verdict, self._on
        self.verdict = None
        if failure is None or trial is None:
            return None
        if not self._can_go_back():
            return await self._give_up(trial, failure)
        good = self.app.good
        assert good is not None
        way = self._back.way(trial.deployment.spec)
        if way.blocked:
            self._keep(trial, failure, way)
            return None
        serving, journal = self.app.serving, self.app.services.journal
        bad, warm = serving.child, self._back.warm_good()
        dead = bad is None or not bad.alive
        if warm is not None:
            warm.taken_back = True  # said before anything is waited for: it may be seen off just now
        await journal.safely(journal.mark, trial.run, "rollback")
        if warm is not None:
            if not dead and not await self.app.services.processes.healthy_now(warm):
                self._environment(failure)
                self._start_timer(max(trial.deployment.spec.health.probation, AGAIN))
                return None
            await self._back.flip(warm, bad)
            healthy = not dead or await self.app.services.processes.healthy_now(warm)
        else:
            healthy = await self._back.start_good(bad, trial.deployment, way)
        self._end()
        if not self.app.fit(good):  # what the bad one did to the data could not be taken back
            await self._set_aside(trial, failure)
            self._close(trial, RunResult.FAILED, failure)
            self.app.failed(failure, trial.run)
            trial.settle(SyncResult.FAILED, failure)
            return None
        if healthy:
            await self._set_aside(trial, failure)
            self.app.condition("EnvironmentFailing", False, "OldPairHealthy")
        else:
            self._environment(failure)
            self.app.services.retry_later(self.app.name, AGAIN, "EnvironmentFailing")
        self._close(trial, RunResult.ROLLED_BACK, failure)
        self.app.failed(failure, trial.run)
        trial.settle(SyncResult.ROLLED_BACK, failure)
        return None

    async def _set_aside(self, trial: OnTrial, failure: FailureInfo) -> None:
        journal, spec = self.app.services.journal, trial.deployment.pair.spec
        await journal.safely(journal.quarantine.add, self.app.name, spec, failure)

    def _keep(self, trial: OnTrial, failure: FailureInfo, way: WayBack) -> None:
        """The data are not the good pair's any more: what there is goes on, and a person is told."""
        self.app.condition("RollbackBlocked", True, SCHEMA_TOO_NEW, f"{way.blocked}; {REMEDY}")
        self._end()
        self._close(trial, RunResult.FAILED, failure)
        self.app.failed(failure, trial.run)
        trial.settle(SyncResult.FAILED, failure)
        self.resume(
            trial.deployment, "", Unfinished.nobodys(trial.deployment.spec, trial.deployment.pair.commit)
        )
        bad = self.app.serving.child
        if bad is not None and not bad.alive and not self.app.serving.restarting:
            self.app.serving.restart(bad.deployment, bad.gate, bad.side, bad)

    def _environment(self, failure: FailureInfo) -> None:
        """The good pair fails too: nobody is to blame, nothing is quarantined; it is looked at again."""
        self.app.condition(
            "EnvironmentFailing", True, failure.reason, "the last good pair fails the same probe now"
        )

    async def _give_up(self, trial: OnTrial, failure: FailureInfo) -> Wish:
        """A first release went bad and nothing good is on disk. What still answers goes on doing so."""
        self._end()
        await self._set_aside(trial, failure)
        self._close(trial, RunResult.FAILED, failure)
        self.app.failed(failure, trial.run)
        trial.settle(SyncResult.FAILED, failure)
        bad = self.app.serving.child
        if bad is not None and not bad.alive:
            await self.app.serving.replace_by_page(bad)
        return trial.wish
