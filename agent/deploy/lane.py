"""The lane of one app: takes the newest wish, plans, runs, and answers for what follows.

One task an app. Everything that changes an app passes through here, one after the other:

    idle --wish--> planning --plan--> running --switched--> probation --time over--> idle
      ^               |                  |                      |
      |            no change           failed               bad verdict
      +---------------+------------------+---------<------- rolling back

A newer wish cancels a run before `migrate` if the specification differs, at most twice in a row; from
`migrate` on the run ends first. A canary can be cancelled, too, if its run had no migration. Runs of one
app never overlap, and a failing app holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn

import msgspec

from agent.artifact.release import release_id
from agent.deploy.catalog import CATALOG
from agent.deploy.child import Child
from agent.deploy.deployments import pair_of
from agent.deploy.leaving import remove, stop_with_agent
from agent.deploy.outcome import Outcome, judge
from agent.deploy.planner import plan
from agent.deploy.recovery import recover
from agent.deploy.run import Run, RunContext, as_info
from agent.deploy.run_context import run_context, situation
from agent.deploy.services import AppContext, Services
from agent.deploy.settlement import Settlement
from agent.deploy.trial import Trial
from agent.deploy.unchanged import settle_unchanged
from agent.deploy.wish import Wish
from agent.deploy.wording import state_of, tell_standing, word_of
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.events import AppWanted, RunFinished, RunStarted
from agent.domain.model import NoChange, Pair, Plan, RunResult, SyncResult
from agent.domain.spec import AppSpec
from agent.kit.tasks import Owned, stop

log = logging.getLogger(__name__)

CANCELS = 2  # runs in a row that newer wishes may cancel


class Lane:
    """Carries out what is wanted of one app. `run` is its life; the other methods only leave word."""

    def __init__(self, name: str, services: Services) -> None:
        self.name = name
        self.services = services
        self.app = AppContext(name, services, self)
        self.trial = Trial(self.app, self._wake_up)
        self.removed = False
        self.ready = asyncio.Event()  # recovered: what was on disk serves again
        self._wish: Wish | None = None
        self._handled: Wish | None = None
        self._leaving: Settlement | None = None
        self._wake = asyncio.Event()
        self._cancels = 0
        self._ending = False
        self._stopped = asyncio.Event()
        self._asked = ""  # digest of the wanted specification as it came, before its checksum was looked up
        self._wanted: Pair | None = None  # the newest wish as it was told
        self._attempts = 0  # transient failures in a row
        self._tasks = Owned(f"{name}/lane")
        self._active: RunContext | None = None
        self._changed = asyncio.Event()  # a run ended
        self.app.canary.changed = self._canary_changed

    # -- leaving word ------------------------------------------------------------------------------

    def want(self, wish: Wish) -> None:
        """A sync wants this. The newest wish wins; the one it replaces is settled as superseded."""
        waiting = self._wish
        if waiting is not None and waiting is not self._handled:
            waiting.settle(SyncResult.SUPERSEDED)
        if self._leaving is not None:
            self._leaving.settle(self.name, SyncResult.SUPERSEDED)
            self._leaving = None
        self._wish = wish
        self.removed = False
        self._wake.set()

    def remove(self, settlement: Settlement) -> None:
        """The app is gone from the state."""
        if self._leaving is not None:
            self._leaving.settle(self.name, SyncResult.SUPERSEDED)
        self._leaving = settlement
        self._wake.set()

    def _wake_up(self) -> None:
        self._wake.set()

    def _canary_changed(self) -> None:
        """It began: who came while the run could not be cancelled is looked at now. Or it ended."""
        self._tell_state()
        self._wake.set()

    # -- serving.Watcher ---------------------------------------------------------------------------

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """The serving child ended by itself: on probation with a good pair at hand, go back to that."""
        taken = self.trial.crashed(child, failure)
        self._tell_state()
        return taken

    def health(self, child: Child, failure: FailureInfo | None) -> None:
        """The verdict over the serving child changed."""
        self.app.unhealthy = failure
        self.app.condition(
            "Healthy",
            failure is None,
            failure.reason if failure else "Probed",
            str(failure) if failure else "",
        )
        if failure is not None:
            self.trial.unhealthy(child, failure)
            self.app.canary.sick.set()
        self._tell_state()

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Recover what is on disk, then follow wishes until cancelled."""
        async with self._tasks, self.trial:
            try:
                await recover(self.app, self.trial)
            except (Failure, OSError) as error:
                self.app.failed(as_info(error, self.name))
            self.ready.set()
            self._tell_state()
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._advance()
                except Exception as error:  # whatever it is, it must not end the lane
                    failure = as_info(error, self.name)
                    self.app.failed(failure)
                    if self._handled is not None:
                        self._handled.settle(SyncResult.FAILED, failure)
                self._tell_state()

    async def _advance(self) -> None:
        if self._ending:
            try:
                await stop_with_agent(self.app)
            finally:
                self._stopped.set()
            return
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            if self.services.paused() is None:
                await self._remove(leaving)
                return
            leaving.settle(self.name, SyncResult.UNCHANGED)
        if self.trial.due and self.trial.verdict is None:
            await self.trial.prove()
        if self.trial.verdict is not None:
            again = await self.trial.roll_back()
            if again is not None and (self._wish is None or self._wish is self._handled):
                self._wish = again
        wish = self._wish
        if wish is not None and wish is not self._handled:
            self._handled = wish
            await self._follow(wish)
            if self._wish is not wish:
                self._wake.set()

    async def _follow(self, wish: Wish) -> None:
        """Plan one wish and carry the plan out."""
        try:
            spec = await self._pinned(wish.spec)
        except Failure as error:
            if wish.newest and wish.spec.digest != self._asked:
                self.app.wanted, self._wanted = wish.spec, pair_of(wish.spec, "", wish.commit)
                self.services.bus.publish(AppWanted(self.name, self._wanted, error.info.message))
            self._failed_early(wish, error)
            return
        if wish.newest:
            self.app.wanted, self._asked = spec, wish.spec.digest
        release = release_id(spec.artifact, self.name) if spec.artifact else ""
        outcome = plan(spec, situation(self.app, spec, release, wish))
        if wish.newest:
            self._wanted = pair_of(spec, release, wish.commit)
        if self._wanted is not None:
            told = outcome.reason
            if wish.rollback:
                told = f"an operator went back to version {spec.version}"
            elif wish.fallback:
                told = f"it does not work; version {spec.version} of before is tried"
            self.services.bus.publish(AppWanted(self.name, self._wanted, told))
        if isinstance(outcome, NoChange):
            self._attempts = 0
            settle_unchanged(self.app, self.trial, wish, spec, outcome)
        else:
            await self._execute(wish, spec, release, outcome)

    async def _pinned(self, spec: AppSpec) -> AppSpec:
        if spec.artifact is None:
            return spec
        return msgspec.structs.replace(spec, artifact=await self.services.artifacts.pin(spec.artifact))

    def _failed_early(self, wish: Wish, error: Failure) -> None:
        """The wish could not even be planned."""
        self.app.failed(error.info)
        wish.settle(SyncResult.FAILED, error.info)
        if error.info.kind is not FailureKind.PERMANENT:
            self._retry(error.info, error.retry_after)

    def _retry(self, failure: FailureInfo, after: float | None) -> None:
        """Ask for a new sync later: 5 s doubling to 5 minutes, or when the other side said."""
        self._attempts += 1
        delay = max(min(300.0, 5.0 * 2.0 ** (self._attempts - 1)), after or 0.0)
        self.services.retry_later(self.name, delay, failure.reason)

    # -- one run -----------------------------------------------------------------------------------

    async def _execute(self, wish: Wish, spec: AppSpec, release: str, outcome: Plan) -> None:
        context = run_context(self.app, wish, spec, release, outcome, self._tasks)
        run = Run(context, CATALOG)
        self._active = context
        self.services.journal.open_run(
            context.id, wish.sync, self.name, outcome,
            spec=spec.digest, version=spec.version, commit=wish.commit,
        )  # fmt: skip
        self.services.bus.publish(RunStarted(context.id, wish.sync, self.name, outcome.reason, outcome.steps))
        self.app.condition("Progressing", True, "Running", outcome.reason)
        self._tell_state()
        began = time.monotonic()
        task = self._tasks.start(run.execute(), name=context.id)
        try:
            await self._see_through(task, wish, context)
        finally:
            if not task.done():
                await stop(task)
            self._active = None
            self._changed.set()
        error = None if task.cancelled() else task.result()
        result = await judge(self.app, context, run, error, task.cancelled())
        await self._conclude(wish, context, result, time.monotonic() - began)

    async def _see_through(
        self, task: asyncio.Task[Exception | None], wish: Wish, context: RunContext
    ) -> None:
        """Wait for the run; a newer, different wish cancels it while that is allowed."""
        while not task.done():
            wake = self._tasks.start(self._wake.wait(), name="wake")
            await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
            wake.cancel()
            if task.done():
                break
            self._wake.clear()
            newer = self._wish
            if newer is not None and newer is not wish and newer.spec.digest == wish.spec.digest:
                wish.join(newer)
                self._wish = wish
            elif self._ending or ((newer is not wish or self._leaving) and self._may_cancel(context)):
                self._cancels += 1
                task.cancel()
                await asyncio.wait({task})
            elif self.trial.due and self.trial.verdict is None and self.app.canary.running:
                await self.trial.prove()  # a canary may last longer than what is left of a probation
        if self._wish is not wish or self._leaving or self._ending or self.trial.verdict or self.trial.due:
            self._wake.set()

    def _may_cancel(self, context: RunContext) -> bool:
        return not context.committed and self._cancels < CANCELS

    async def _conclude(self, wish: Wish, context: RunContext, outcome: Outcome, seconds: float) -> None:
        """Record how the run ended, tell everyone, and do what follows from it."""
        failure = outcome.failure
        await self.services.journal.close_run(context.id, outcome.result, failure, durable=True)
        if failure is not None and outcome.result is not RunResult.CANCELLED:
            self.app.failed(failure, context.id)
        self.services.bus.publish(
            RunFinished(context.id, wish.sync, self.name, outcome.result, seconds, failure)
        )
        self.app.condition("Progressing", False, word_of(outcome.result), failure.message if failure else "")
        if outcome.result is not RunResult.CANCELLED:
            self._cancels = 0
        if context.switched:
            self._attempts = 0
            await self.trial.begin(context, wish, outcome.result)
            return
        if outcome.quarantine and failure is not None and not wish.rollback:
            await self.services.journal.quarantine.add(self.name, context.spec.digest, failure, durable=True)
        wish.settle(outcome.sync_result, failure)
        if outcome.retry and failure is not None:
            self._retry(failure, outcome.retry_after)
        elif outcome.quarantine and self.app.good is None and self.app.serving.child is None:
            again = await self.trial.earlier(wish)
            if again is not None and self._wish is wish:
                self._wish = again
                self._wake.set()

    # -- the end -----------------------------------------------------------------------------------

    async def _remove(self, settlement: Settlement) -> None:
        """The app is gone from the state. Who wants it back meanwhile is served afterwards."""
        if self._wish is not None and self._wish is not self._handled:
            self._wish.settle(SyncResult.SUPERSEDED)
        self._wish = self._handled = self._wanted = None
        self.trial.end()
        try:
            await remove(self.app)
        except (Failure, OSError) as error:
            failure = as_info(error, self.name)
            self.app.failed(failure)
            settlement.settle(self.name, SyncResult.FAILED, failure)
            self._retry(failure, None)
            return
        self.app.forget()
        self.removed = self._wish is None
        settlement.settle(self.name, SyncResult.SUCCEEDED)

    async def idle(self) -> None:
        """Wait until no run is under way."""
        while self._active is not None:
            await self._changed.wait()
            self._changed.clear()

    async def detach(self) -> None:
        """The agent makes way for the next one: the ports stay with the keeper as they are."""
        for gate in self.app.gates.all():
            await gate.detach()

    async def shut_down(self) -> None:
        """The agent ends for good: give up the run, stop the children in order; returns when it is done."""
        self._ending = True
        self._wake.set()
        await self._stopped.wait()

    # -- one word ----------------------------------------------------------------------------------

    def _tell_state(self) -> None:
        if self.removed:
            return
        updating = self._active is not None
        self.app.state(state_of(self.app, updating=updating, on_trial=self.trial.running))
        if not updating:
            tell_standing(self.app)
