"""The runs of one app, one after the other: each from its plan to the record of its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from agent.deploy.catalog import CATALOG
from agent.deploy.data import contract_key
from agent.deploy.failures import as_info
from agent.deploy.journal_rows import SIGNED
from agent.deploy.outcome import Outcome, judge
from agent.deploy.run import Run, RunContext
from agent.deploy.run_context import run_context
from agent.deploy.services import AppContext
from agent.deploy.trial import Trial
from agent.deploy.wish import Wish
from agent.deploy.word import Word
from agent.deploy.wording import word_of
from agent.domain.errors import Failure
from agent.domain.events import RunEstimated, RunFinished, RunStarted
from agent.domain.model import Plan, RunResult, SyncResult
from agent.domain.spec import AppSpec
from agent.kit.tasks import Owned
from agent.status.log import bind

log = logging.getLogger(__name__)

CANCELS = 2  # runs in a row that newer wishes may cancel


class Runs:
    """Carries plans out. `changed` is called when a run begins.

    Args:
        app: the app.
        trial: takes over what a run switched to.
        word: what is left for the app's lane meanwhile.
        tasks: own the run.
        changed: tells the app's state.
    """

    def __init__(
        self, app: AppContext, trial: Trial, word: Word, tasks: Owned, changed: Callable[[], None]
    ) -> None:
        self._app = app
        self._trial = trial
        self._word = word
        self._tasks = tasks
        self._tell_state = changed
        self._cancels = 0
        self._active: RunContext | None = None
        self._ended = asyncio.Event()

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        return self._active is not None

    @property
    def undisturbed(self) -> bool:
        """Whether one is under way that must end first, whatever happens."""
        return self._active is not None and self._active.committed

    async def idle(self) -> None:
        """Wait until no run is under way."""
        while self._active is not None:
            await self._ended.wait()
            self._ended.clear()

    async def carry_out(self, wish: Wish, spec: AppSpec, release: str, plan: Plan) -> Outcome:
        """One run, from the plan for a wish to the record of its end. Raises only CancelledError."""
        context = run_context(self._app, wish, spec, release, plan, self._tasks)
        with bind(sync=wish.sync, run=context.id):
            return await self._carry_out(wish, context)

    async def _carry_out(self, wish: Wish, context: RunContext) -> Outcome:
        spec, plan = context.spec, context.plan
        journal = self._app.services.journal
        journal.open_run(
            context.id, wish.sync, self._app.name, plan,
            spec=spec.digest, version=spec.version, commit=wish.commit,
        )  # fmt: skip
        if wish.signer:
            journal.mark(context.id, SIGNED, wish.signer)
        self._app.services.bus.publish(
            RunStarted(context.id, wish.sync, self._app.name, plan.reason, plan.steps)
        )
        self._app.condition("Progressing", True, "Running", plan.reason)
        self._tasks.start(self._estimate(context.id), name="estimate")
        if wish.override:
            journal.mark(context.id, "override", wish.override)
        self._active = context
        self._tell_state()
        began = time.monotonic()
        try:
            await asyncio.to_thread(self._app.directory.make)
            outcome = await self._run(wish, context)
        except Exception as error:  # a run always has an end that is recorded and told
            failure = as_info(error, context.id)
            outcome = Outcome(RunResult.FAILED, SyncResult.FAILED, failure, retry=True)
        finally:
            self._active = None
            self._ended.set()
        await self._record(wish, context, outcome, time.monotonic() - began)
        return outcome

    async def _estimate(self, run: str) -> None:
        """Tell how long the steps took in earlier runs, beside the run itself."""
        try:
            usual = await self._app.services.journal.last_durations(self._app.name)
        except Failure as error:  # the journal's own trouble, which is told elsewhere
            log.debug("%s: no estimate: %s", run, error)
        else:
            self._app.services.bus.publish(RunEstimated(run, self._app.name, usual))

    async def _run(self, wish: Wish, context: RunContext) -> Outcome:
        run = Run(context, CATALOG)
        task = await self._word.accompany(run.execute(), lambda: self._heard(wish, context))
        error = None if task.cancelled() else task.result()
        return await judge(self._app, run, error, task.cancelled(), self._word.ending)

    async def _heard(self, wish: Wish, context: RunContext) -> bool:
        """Look at the word that was left; whether it ends the run."""
        if self._is_ended(wish, context):
            return True
        if self._trial.due and self._trial.verdict is None and self._app.canary.running:
            await self._trial.prove()  # a canary may last longer than what is left of a probation
        return False

    def _is_ended(self, wish: Wish, context: RunContext) -> bool:
        if self._word.ending:
            return True
        if context.committed:
            return False
        if self._trial.verdict is not None:
            return True  # what serves went bad: that has to be seen to first
        if not self._word.news(wish):
            return False
        if self._word.leaving is None and self._cancels >= CANCELS:
            return False
        self._cancels += 1
        return True

    async def _record(self, wish: Wish, context: RunContext, outcome: Outcome, seconds: float) -> None:
        """Record how a run ended, and tell everyone."""
        app, failure, journal = self._app, outcome.failure, self._app.services.journal
        await journal.safely(journal.close_run, context.id, outcome.result, failure)
        cancelled = outcome.result is RunResult.CANCELLED
        if failure is not None and not cancelled:
            app.failed(failure, context.id)
        app.services.bus.publish(
            RunFinished(context.id, wish.sync, app.name, outcome.result, seconds, failure)
        )
        app.condition("Progressing", False, word_of(outcome.result), failure.message if failure else "")
        if not cancelled:
            self._cancels = 0
        if context.switched:
            app.placed = context.spec.run is None
            await self._trial.begin(context, wish, outcome.result)
            return
        if outcome.quarantine and failure is not None and not wish.rollback:
            digest = context.spec.digest
            aside = contract_key(digest) if context.plan.contracts else digest
            await journal.safely(journal.quarantine.add, app.name, aside, failure)
        if not (cancelled and self._word.put_off(wish)):
            wish.settle(outcome.sync_result, failure)
