"""The end of a wish for which nothing is done: said honestly, for what is set aside is no success."""

from __future__ import annotations

from agent.deploy.services import AppContext
from agent.deploy.trial import Trial
from agent.deploy.wish import Wish
from agent.deploy.wording import OPERATOR_ROLLBACK
from agent.domain.model import NoChange, SyncResult
from agent.domain.spec import AppSpec


def settle_unchanged(app: AppContext, trial: Trial, wish: Wish, spec: AppSpec, outcome: NoChange) -> None:
    """Settle a wish that the planner has nothing to do for."""
    held = app.quarantined(spec)
    current = app.current
    if held is not None and held.reason != OPERATOR_ROLLBACK:  # even if, for want of a better one, it serves
        wish.settle(SyncResult.FAILED, held)
    elif current is not None and trial.waits_for(spec.digest):
        trial.join(wish)
        wish.settle(SyncResult.PROBATION)
    else:
        wish.settle(SyncResult.UNCHANGED)
    app.condition("Progressing", False, "NothingToDo", outcome.reason)
