"""Probation: the watched time after a switch, and the way back when it goes bad.

    none --begin--> on trial --time over----------> proven: `good` moves, the warm predecessor retires
                       +--newer release switched--> superseded: `good` stays
                       +--crash, unhealthy--------> verdict --> rolled back: flip to the warm predecessor,
                                                                or start the last good pair again

The timer and the watchers only leave word; the lane calls `prove` and `roll_back`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.leaving import see_off
from agent.deploy.run import RunContext
from agent.deploy.services import AppContext
from agent.deploy.settlement import Settlement
from agent.deploy.wish import Wish
from agent.domain.errors import Failure, FailureInfo
from agent.domain.events import RunFinished
from agent.domain.model import RunResult, SyncResult
from agent.kit.tasks import Owned

log = logging.getLogger(__name__)

FIRST_CRASHES = 3  # crashes on probation before a first release, with nothing to go back to, is given up
EARLIER = 3  # earlier specifications tried when nothing good is on disk


@dataclass(eq=False, slots=True)
class OnTrial:
    """A release being watched."""

    run: str
    sync: str
    deployment: Deployment
    wishes: list[Wish] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    crashes: int = 0

    def settle(self, result: SyncResult, failure: FailureInfo | None = None) -> None:
        """Tell every sync that waits for the last word."""
        for wish in self.wishes:
            wish.settle(result, failure)


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
        self._candidates: list[tuple[str, Wish]] | None = None

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
            self._on.wishes.append(wish)

    async def begin(self, context: RunContext, wish: Wish, result: RunResult) -> None:
        """A run switched. Without probation the release is good at once."""
        assert context.deployment is not None
        self.end()
        self._candidates = None
        self.app.recovered()
        self._on = OnTrial(context.id, wish.sync, context.deployment, [wish])
        if result is RunResult.SUCCEEDED:
            await self.prove()
        else:
            wish.settle(SyncResult.PROBATION)
            self._start_timer(context.spec.health.probation)

    def resume(self, deployment: Deployment, run: str, sync: str) -> None:
        """After a restart of the agent: watch for the whole time again."""
        self._on = OnTrial(run, sync, deployment)
        self._start_timer(deployment.spec.health.probation)

    def end(self) -> None:
        """The release on probation was superseded or removed: its last word is neither good nor bad."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        trial, self._on = self._on, None
        self.verdict, self.due = None, False
        if trial is not None:
            self._close(trial, RunResult.SUPERSEDED, None)
            trial.settle(SyncResult.SUPERSEDED)

    def _start_timer(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            self.due = True
            self._wake()

        self._timer = self._tasks.start(wait(), name="probation")

    def crashed(self, child: Child, failure: FailureInfo) -> bool:
        """Whether a crash is a verdict: with a good pair to go back to, the first one is."""
        trial = self._on
        if trial is None or child is not self.app.serving.child:
            return False
        trial.crashes += 1
        if not self._can_go_back() and trial.crashes < FIRST_CRASHES:
            return False
        self._bad(failure)
        return True

    def unhealthy(self, child: Child, failure: FailureInfo) -> None:
        """Failed probes on probation are a verdict."""
        if self._on is not None and child is self.app.serving.child:
            self._bad(failure)

    def _bad(self, failure: FailureInfo) -> None:
        if self.verdict is None:
            self.verdict = failure
            self._wake()

    def _can_go_back(self) -> bool:
        good = self.app.good
        return good is not None and self._on is not None and good.pair.spec != self._on.deployment.pair.spec

    async def prove(self) -> None:
        """The release stood its time: it is good, and its predecessor may go."""
        self.due = False
        trial, self._on = self._on, None
        if trial is None:
            return
        await asyncio.to_thread(self.app.link_good, trial.deployment)
        await self.app.services.journal.mark(trial.run, "retire", durable=True)
        self._close(trial, RunResult.SUCCEEDED, None)
        trial.settle(SyncResult.SUCCEEDED)
        self.app.condition("EnvironmentFailing", False, "Proven")
        if self.app.serving.warm is not None:
            self._tasks.start(see_off(self.app, self.app.serving.warm), name="retire")
        self._tasks.start(self._tidy(), name="tidy")

    async def _tidy(self) -> None:
        """Remove what no longer has to be at hand. Never in the way of a deploy."""
        keep = {d.pair.spec for d in (self.app.current, self.app.good) if d is not None}
        await asyncio.to_thread(
            self.app.deployments.retain, self.app.current.spec.keep if self.app.current else 3, keep
        )
        await self.app.services.collect()

    def _close(self, trial: OnTrial, result: RunResult, failure: FailureInfo | None) -> None:
        if not trial.run:
            return
        seconds = time.monotonic() - trial.began
        self.app.services.journal.close_run(trial.run, result, failure)
        self.app.services.bus.publish(
            RunFinished(trial.run, trial.sync, self.app.name, result, seconds, failure)
        )

    # -- the way back ------------------------------------------------------------------------------

    async def roll_back(self) -> Wish | None:
        """Go back from the release on probation. Returns an earlier wish to try when there is no way back."""
        failure, trial = self.verdict, self._on
        self.verdict = None
        if failure is None or trial is None:
            return None
        if not self._can_go_back():
            return await self._give_up(trial, failure)
        serving = self.app.serving
        bad, warm = serving.child, serving.warm
        await self.app.services.journal.mark(trial.run, "rollback", durable=True)
        dead = bad is None or not bad.alive
        if warm is not None and warm.alive:
            if not dead and not await self.app.services.processes.healthy_now(warm):
                self._environment(failure)
                return None
            await self._flip_back(warm, bad)
            healthy = not dead or await self.app.services.processes.healthy_now(warm)
        else:
            healthy = await self._start_good(bad)
        self._end_trial()
        if not healthy:
            self._environment(failure)
        else:
            await self._quarantine(trial, failure)
            self.app.condition("EnvironmentFailing", False, "OldPairHealthy")
        self._close(trial, RunResult.ROLLED_BACK, failure)
        self.app.failed(failure, trial.run)
        trial.settle(SyncResult.ROLLED_BACK, failure)
        return None

    async def _quarantine(self, trial: OnTrial, failure: FailureInfo) -> None:
        journal, spec = self.app.services.journal, trial.deployment.pair.spec
        await journal.quarantine.add(self.app.name, spec, failure, durable=True)

    def _end_trial(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._on, self._timer, self.due = None, None, False

    async def _flip_back(self, warm: Child, bad: Child | None) -> None:
        serving = self.app.serving
        if warm.gate is not None:
            await warm.gate.serve(warm.side)
        self.app.gates.lead(warm.gate)
        serving.take(warm, keep_old_warm=False)
        self.app.recovered()
        await asyncio.to_thread(self.app.link_current, warm.deployment)
        if bad is not None:
            self._tasks.start(see_off(self.app, bad), name="retire bad")

    async def _start_good(self, bad: Child | None) -> bool:
        """No predecessor is warm: hold the clients, stop the bad one, start the last good pair."""
        good = self.app.good
        assert good is not None
        serving = self.app.serving
        serving.stop_watching()
        side, gate = serving.free_side(), self.app.gates.of(good.spec)
        if bad is not None and bad.gate is not gate:  # the ports go back, too
            await serving.retire(bad, take_over=False)
            if bad.gate is not None:
                await self.app.gates.give_up(bad.gate)
        elif bad is not None:
            await serving.hand_over(bad, gate, side)
        self.app.gates.lead(gate)
        healthy = await serving.bring_back(good, gate, side)
        self.app.recovered()
        await asyncio.to_thread(self.app.link_current, good)
        return healthy

    def _environment(self, failure: FailureInfo) -> None:
        """The good pair fails too: nobody is to blame, nothing is quarantined; look again later."""
        self.app.condition(
            "EnvironmentFailing", True, failure.reason, "the last good pair fails the same probe now"
        )
        self.app.services.retry_later(self.app.name, 30.0, "EnvironmentFailing")

    async def _give_up(self, trial: OnTrial, failure: FailureInfo) -> Wish | None:
        """A first release went bad and nothing good is on disk: try an earlier specification."""
        wish = trial.wishes[0] if trial.wishes else None
        if wish is None:
            return None
        self._end_trial()
        await self._quarantine(trial, failure)
        self._close(trial, RunResult.FAILED, failure)
        self.app.failed(failure, trial.run)
        trial.settle(SyncResult.FAILED, failure)
        return await self.earlier(wish)

    async def earlier(self, wish: Wish) -> Wish | None:
        """The next of up to three earlier, distinct, not quarantined specifications from Git."""
        services = self.app.services
        if self._candidates is None:
            try:
                found = await services.earlier(wish.commit, self.app.name, EARLIER + 1)
            except Failure as error:
                log.warning("%s: no earlier specification to be had: %s", self.app.name, error)
                return None
            self._candidates = [
                (
                    commit,
                    Wish(
                        spec,
                        commit,
                        Settlement(wish.sync, commit, [self.app.name], lambda _: None),
                        fallback=True,
                    ),
                )
                for commit, spec in found
                if spec.digest != wish.spec.digest
            ][:EARLIER]
        while self._candidates:
            _, candidate = self._candidates.pop(0)
            if services.journal.quarantine.find(self.app.name, candidate.spec.digest) is None:
                return candidate
        return None
