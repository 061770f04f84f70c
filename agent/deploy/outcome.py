"""What a run's end means: its result, the sync's, and what follows (quarantine, retry, nothing).

| end | result | follows |
|---|---|---|
| every step of a preparation done | prepared | the freeze's end |
| every step done, or failed only after the switch | probation (succeeded without one) | trial |
| of a repair | succeeded or failed | the next look |
| cancelled by a newer wish | cancelled | the newer wish |
| cancelled by the agent's end | interrupted | the next agent looks |
| transient or operator failure | later | retry with backoff |
| of a contract migration | succeeded, later or failed | retry, or quarantine of the contract alone |
| permanent failure, the data are not the old pair's any more | failed, RollbackBlocked | quarantine |
| permanent failure, old pair healthy | failed (rolled-back if clients noticed) | quarantine |
| permanent failure, old pair fails the same probe | failed, EnvironmentFailing | retry with backoff |
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.deploy.failures import as_info
from agent.deploy.journal import INTERRUPTED
from agent.deploy.run import Run, RunContext
from agent.deploy.services import AppContext
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.model import RunResult, SyncResult

HEALTH_REASONS = ("ProbeFailed", "ChildExited", "WatchdogSilent", "CanaryFailed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended and what follows."""

    result: RunResult
    sync_result: SyncResult
    failure: FailureInfo | None = None
    quarantine: bool = False
    retry: bool = False
    retry_after: float | None = None


async def judge(app: AppContext, run: Run, error: Exception | None, cancelled: bool, ending: bool) -> Outcome:
    """Decide; probes the old pair when the new one failed its probe.

    Args:
        app: the app.
        run: the run that has ended.
        error: what it failed with, if it did.
        cancelled: it did not end by itself.
        ending: the agent ends, which is why.
    """
    context = run.context
    if context.switched:
        failure = as_info(error, context.id) if error is not None else None  # told, but it serves
        if context.spec.health.probation > 0:
            return Outcome(RunResult.PROBATION, SyncResult.PROBATION, failure)
        return Outcome(RunResult.SUCCEEDED, SyncResult.SUCCEEDED, failure)
    if context.plan.repairs and not cancelled:
        # What serves is what it was before: nothing to set aside, and the next look finds what is left.
        failure = run.failure or (as_info(error, context.app) if error is not None else None)
        if failure is None:
            return Outcome(RunResult.SUCCEEDED, SyncResult.SUCCEEDED)
        if context.plan.contracts:
            later = failure.kind is not FailureKind.PERMANENT
            result = RunResult.LATER if later else RunResult.FAILED
            return Outcome(result, SyncResult.FAILED, failure, quarantine=not later, retry=later)
        return Outcome(RunResult.FAILED, SyncResult.FAILED, failure)
    if cancelled:
        if ending:
            return Outcome(RunResult.INTERRUPTED, SyncResult.INTERRUPTED, INTERRUPTED)
        return Outcome(RunResult.CANCELLED, SyncResult.SUPERSEDED)
    if error is None:
        return Outcome(RunResult.PREPARED, SyncResult.UNCHANGED)
    failure = run.failure or as_info(error, context.app)
    if failure.kind is not FailureKind.PERMANENT:
        after = error.retry_after if isinstance(error, Failure) else None
        return Outcome(RunResult.LATER, SyncResult.FAILED, failure, retry=True, retry_after=after)
    if context.stuck:  # nobody serves, and nothing older may
        return Outcome(RunResult.FAILED, SyncResult.FAILED, failure, quarantine=True)
    back = context.stopped_old is not None or context.shared
    result = RunResult.ROLLED_BACK if back else RunResult.FAILED
    sync_result = SyncResult.ROLLED_BACK if back else SyncResult.FAILED
    if failure.reason in HEALTH_REASONS and await _environment_fails(app, context):
        app.condition(
            "EnvironmentFailing", True, failure.reason, "the pair that served before fails the same probe now"
        )
        return Outcome(result, sync_result, failure, retry=True)
    app.condition("EnvironmentFailing", False, "OldPairHealthy")
    return Outcome(result, sync_result, failure, quarantine=True)


async def _environment_fails(app: AppContext, context: RunContext) -> bool:
    if context.stopped_old is not None:
        return not context.back_healthy
    old = app.serving.child
    if old is None or app.good is None or not old.alive:
        return False
    return not await app.services.processes.healthy_now(old)
