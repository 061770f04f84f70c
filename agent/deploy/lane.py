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
from contextlib import aclosing
from functools import partial
from typing import NoReturn

from agent.deploy.child import Child
from agent.deploy.data import contract_wish, held_back
from agent.deploy.deployments import pair_of
from agent.deploy.drift import Drift
from agent.deploy.failures import as_info
from agent.deploy.fallback import Fallback
from agent.deploy.leaving import remove, stop_with_agent
from agent.deploy.outcome import Outcome
from agent.deploy.pinning import pinned
from agent.deploy.planner import plan
from agent.deploy.recovery import recover
from agent.deploy.retries import HEEDED, pause
from agent.deploy.run_context import situation
from agent.deploy.runs import Runs
from agent.deploy.services import AppContext, Services
from agent.deploy.settlement import Settlement
from agent.deploy.trial import Trial
from agent.deploy.unchanged import settle_unchanged
from agent.deploy.unclear import settle_migrations
from agent.deploy.wish import Wish
from agent.deploy.word import Word
from agent.deploy.wording import state_of, tell_instances, tell_standing, told_of
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.events import AppWanted
from agent.domain.model import NoChange, Pair, Plan, RunResult, SyncResult
from agent.domain.spec import AppSpec
from agent.kit.tasks import Owned

log = logging.getLogger(__name__)


class Lane:
    """Carries out what is wanted of one app. `run` is its life; the other methods only leave word."""

    def __init__(self, name: str, services: Services) -> None:
        self.name = name
        self.services = services
        self.app = AppContext(name, services, self)
        self.removed, self._busy = False, True
        self._tasks = Owned(f"{name}/lane")
        self._word = Word(name, self._tasks)
        self.trial = Trial(self.app, self._word.wake)
        self._runs = Runs(self.app, self.trial, self._word, self._tasks, self._tell_state)
        self._stopped = asyncio.Event()
        self._asked = ""  # digest of the wanted specification as it came, before its checksum was looked up
        self.wanted: Pair | None = None  # the newest wish as it was told
        self._attempts = 0  # transient failures in a row
        self.app.canary.changed = self._canary_changed
        self.app.jobs.changed = self._tell_state
        quarantine = services.journal.quarantine
        self._drift = Drift(self.app, self._resting, self._word.want)
        self._fallback = Fallback(
            name, services.earlier, lambda digest: quarantine.find(name, digest) is not None
        )

    # -- leaving word ------------------------------------------------------------------------------

    def want(self, wish: Wish) -> None:
        """A sync wants this."""
        self.removed = False
        self._word.want(wish)

    def refuse(self, settlement: Settlement, failure: FailureInfo) -> None:
        """A sync wants the app, and cannot read what it wants: what serves goes on, and it is tried again."""
        self.removed = False
        self.app.failed(failure)
        settlement.settle(self.name, SyncResult.FAILED, failure)
        self._retry(failure, None)

    def remove(self, settlement: Settlement) -> None:
        """The app is gone from the state."""
        self._word.remove(settlement)

    async def shut_down(self) -> None:
        """The agent ends for good: give up the run, stop the children in order; returns when it is done."""
        self._word.end()
        await self._stopped.wait()

    def _canary_changed(self) -> None:
        """It began: who came while the run could not be cancelled is looked at now. Or it ended."""
        self._tell_state()
        self._word.wake()

    # -- serving.Watcher ---------------------------------------------------------------------------

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """The serving child ended by itself: on probation with a good pair at hand, go back to that.

        Not while a run must not be disturbed: then it is started again, and the verdict waits.
        """
        taken = self.trial.crashed(child, failure)
        self._tell_state()
        return taken and not self._runs.undisturbed

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
        else:
            self.trial.recovered()
        self._tell_state()

    def changed(self) -> None:
        """A restart began, or its clients are looked after in another way."""
        self._tell_state()

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Recover what is on disk, then follow wishes until cancelled."""
        async with self.trial, self._tasks, aclosing(self.app.jobs):
            made = partial(asyncio.to_thread, self.app.directory.make)
            commands = partial(settle_migrations, self.app)
            for begin in (made, partial(recover, self.app, self.trial), commands, self.app.jobs.begin):
                try:
                    await self._word.accompany(begin(), self._word.ends)
                except Exception as error:  # whatever it is, it must not end the lane
                    self.app.failed(as_info(error, self.name))
                self._tell_state()
            self._tasks.start(self._drift.watch(), name="drift")
            while True:
                self._busy = False
                await self._word.wait()
                self._busy = True
                try:
                    await self._advance()
                except Exception as error:
                    self._survive(as_info(error, self.name))
                self._drift.changed()
                self.app.jobs.wake()
                self._tell_state()

    def _resting(self) -> bool:
        """Whether nothing is under way, and nothing waits to be."""
        return not (self.removed or self._runs.active or self._word.waits or self.trial.verdict)

    def _survive(self, failure: FailureInfo) -> None:
        """Something unexpected went wrong: whoever waits is told, and all is tried again later."""
        self.app.failed(failure)
        handled = self._word.handled
        if handled is not None and handled.open:
            handled.settle(SyncResult.FAILED, failure)
        self._retry(failure, None)

    async def _advance(self) -> None:
        if self._word.ending:
            await self._end()
            return
        leaving = self._word.take_leaving()
        if leaving is not None:
            if self.services.paused() is None and self.services.frozen() is None:
                await self._remove(leaving)
                return
            leaving.settle(self.name, SyncResult.UNCHANGED)
        if self.trial.due and self.trial.verdict is None:
            await self.trial.prove()
        if not (self.trial.running or self._word.waits) and (due := contract_wish(self.app)) is not None:
            self._word.want(due)
        if self.trial.verdict is not None:
            given_up = await self.trial.roll_back()
            if given_up is not None:
                await self._fall_back(given_up)
        wish = self._word.take()
        if wish is not None:
            await self._follow(wish)
        if not self.removed and not self._word.waits and self.trial.verdict is None:
            self._keep_serving()
        if needed := self.app.serving.gates():
            await self.app.gates.only(*needed)

    def _keep_serving(self) -> None:
        """If nobody serves, though something on disk could: start it, again and again."""
        serving = self.app.serving
        if not serving.nobody:
            return
        for deployment in (self.app.current, self.app.good):
            if deployment is not None and deployment.spec.run is None:
                return
            if deployment is not None and not self.app.fit(deployment):
                continue
            if deployment is not None and self.app.quarantined(deployment.spec) is None:
                gate = self.app.gates.of(deployment.spec)
                self.app.gates.lead(gate)
                serving.restart(deployment, gate, serving.free_side(), serving.child)
                return

    async def _follow(self, wish: Wish) -> None:
        """Plan one wish and carry the plan out."""
        pinning = pinned(self.services.artifacts, wish.spec)
        try:
            looking = await self._word.accompany(pinning, lambda: self._word.newer(wish))
        except Failure as error:
            if wish.newest and wish.spec.digest != self._asked:
                self.app.wanted, self.wanted = wish.spec, pair_of(wish.spec, "", wish.commit, wish.signer)
                self.services.bus.publish(AppWanted(self.name, self.wanted, error.info.message))
            self._failed_early(wish, error)
            return
        if looking.cancelled():
            wish.settle(self._word.given_up)
            return
        spec, release = looking.result()
        if wish.newest:
            self.app.wanted, self._asked = spec, wish.spec.digest
        if (held := held_back(self.app, wish, spec, release)) is not None:
            self._failed_early(wish, held)
            return
        outcome = plan(spec, situation(self.app, spec, release, wish))
        self._tell_wanted(wish, spec, release, outcome)
        if isinstance(outcome, NoChange):
            self._attempts = 0
            settle_unchanged(self.app, self.trial, wish, spec, outcome)
            if self.app.quarantined(spec) is not None and self.app.good is None and self.app.serving.nobody:
                await self._fall_back(wish)
        else:
            await self._see_to(wish, spec, await self._runs.carry_out(wish, spec, release, outcome))

    async def _see_to(self, wish: Wish, spec: AppSpec, outcome: Outcome) -> None:
        """Do what follows from a run's end."""
        if outcome.retry and outcome.failure is not None:
            self._retry(outcome.failure, outcome.retry_after)
        elif outcome.quarantine and self.app.good is None and self.app.serving.nobody:
            await self._fall_back(wish)
        elif outcome.result in (RunResult.PROBATION, RunResult.SUCCEEDED):
            self._attempts = 0
        elif outcome.result is RunResult.PREPARED:
            self.app.prepared, self._attempts = spec.digest, 0

    def _tell_wanted(self, wish: Wish, spec: AppSpec, release: str, outcome: Plan | NoChange) -> None:
        if wish.newest:
            self.wanted = pair_of(spec, release, wish.commit, wish.signer)
        told = told_of(wish, spec, outcome)
        if self.wanted is not None:
            self.services.bus.publish(AppWanted(self.name, self.wanted, told))

    def _failed_early(self, wish: Wish, error: Failure) -> None:
        """The wish could not even be planned."""
        self.app.failed(error.info)
        wish.settle(SyncResult.FAILED, error.info)
        if error.info.kind is not FailureKind.PERMANENT:
            self._retry(error.info, error.retry_after)

    def _retry(self, failure: FailureInfo, after: float | None) -> None:
        """Ask for a new sync later."""
        self._attempts += 1
        self.services.retry_later(self.name, pause(self._attempts, after, HEEDED), failure.reason)

    async def _fall_back(self, wish: Wish) -> None:
        """Nothing good is on disk: try an earlier specification in place of one that failed."""
        try:
            looking = await self._word.accompany(self._fallback.next(wish), self._word.came)
        except Failure as error:
            log.warning("%s: no earlier specification to be had: %s", self.name, error)
            self._retry(error.info, error.retry_after)
            return
        if not looking.cancelled() and (again := looking.result()) is not None:
            self._word.instead(again)

    # -- the end -----------------------------------------------------------------------------------

    async def _remove(self, settlement: Settlement) -> None:
        """The app is gone from the state. Who wants it back meanwhile is served afterwards."""
        self._word.forget()
        self.wanted = None
        self.trial.end()
        try:
            await remove(self.app)
        except Exception as error:
            failure = as_info(error, self.name)
            self.app.failed(failure)
            settlement.settle(self.name, SyncResult.FAILED, failure)
            self._retry(failure, None)
            return
        self.app.forget()
        self.removed = not self._word.wanted
        settlement.settle(self.name, SyncResult.SUCCEEDED)

    @property
    def busy(self) -> bool:
        """Whether something is under way, or waits to be."""
        return self._busy or self._word.waits

    @property
    def updating(self) -> bool:
        """Whether a run is under way."""
        return self._runs.active

    async def idle(self) -> None:
        """Wait until no run is under way."""
        await self._runs.idle()

    async def detach(self) -> None:
        """The agent makes way for the next one: the ports stay with the keeper as they are."""
        for gate in self.app.gates.all():
            await gate.detach()

    async def _end(self) -> None:
        """Whoever waits is told; then everything stops."""
        try:
            self._word.interrupt()
            await stop_with_agent(self.app)
        finally:
            self._stopped.set()

    # -- one word ----------------------------------------------------------------------------------

    def _tell_state(self) -> None:
        if self.removed:
            return
        updating = self._runs.active
        tell_instances(self.app)
        self.app.state(state_of(self.app, updating=updating, on_trial=self.trial.running))
        if not updating:
            tell_standing(self.app)
