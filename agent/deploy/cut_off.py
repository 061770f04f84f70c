"""What is to become of the steps of a run in which the agent died: as each kind declares, see `run.Crash`.

The journal names the steps; whether one had its effect is told by what is there: the links, the keeper's
children, the gates. So a run whose release serves goes on, and its steps are finished; any other one's are
taken back, or done anew by the run that follows.

| declared | the run's release serves | it does not |
|---|---|---|
| redo | it was done | the next run does it |
| undo | it stays | taken back |
| resume | finished | counts for nothing; what a migration did is in the ledger |
"""

from __future__ import annotations

from agent.deploy.catalog import CATALOG
from agent.deploy.journal_rows import UnfinishedRun
from agent.deploy.run import Crash
from agent.domain.model import StepResult

_BEGUN = (StepResult.RUNNING, StepResult.CANCELLED, StepResult.SUCCEEDED, StepResult.FAILED)


def to_finish(run: UnfinishedRun) -> list[str]:
    """Names of the steps that are finished when the run goes on."""
    cut = (StepResult.RUNNING, StepResult.CANCELLED)
    return [name for name in _declared(run, Crash.RESUME) if run.steps[name] in cut]


def to_take_back(run: UnfinishedRun, *, serves: bool) -> list[str]:
    """Names of the steps of which nothing is left; `serves`: the app has a child again."""
    # Who was stopped is back only when something serves: its data may not be its own any more.
    return [name for name in _declared(run, Crash.UNDO) if serves or run.kinds[name] != "stop"]


def _declared(run: UnfinishedRun, crash: Crash) -> list[str]:
    """Steps that had begun, of kinds that declare this. A kind that is not known here declares nothing."""
    kinds = {name: CATALOG.get(kind) for name, kind in run.kinds.items()}
    return [
        name
        for name, result in run.steps.items()
        if result in _BEGUN and (kind := kinds[name]) is not None and kind.crash is crash
    ]
