"""What is to become of the steps of a run in which the agent died: as each kind declares, see `run.Crash`.

The journal names the steps; whether one had its effect is told by what is there: the links, the keeper's
children, the gates. So a run whose release serves goes on, and its steps are finished; any other one's are
taken back, or done anew by the run that follows. The last rows of the journal may be missing: what comes
before the step from which on the release serves was done, whatever is written of it.

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
_CUT = (StepResult.PENDING, StepResult.RUNNING, StepResult.CANCELLED)
_TURNS = ("switch", "record")  # kinds from which on the run's release is the one that serves


def turns(run: UnfinishedRun) -> bool:
    """Whether the run was to make its release the one that serves; others do something for what serves."""
    return any(kind in _TURNS for kind in run.kinds.values())


def to_finish(run: UnfinishedRun) -> dict[str, str]:
    """Names and kinds of the steps that are finished when the run, whose release serves, goes on."""
    names = list(run.kinds)
    turned = max((n for n, name in enumerate(names) if run.kinds[name] in _TURNS), default=-1)
    return {
        name: run.kinds[name]
        for number, name in enumerate(names)
        if _result(run, name) in _CUT and (number <= turned or _declares(run, name, Crash.RESUME))
    }


def to_take_back(run: UnfinishedRun, *, serves: bool) -> list[str]:
    """Names of the steps of which nothing is left; `serves`: the app has a child again."""
    # Who was stopped is back only when something serves: its data may not be its own any more.
    return [
        name
        for name, kind in run.kinds.items()
        if _result(run, name) in _BEGUN and _declares(run, name, Crash.UNDO) and (serves or kind != "stop")
    ]


def _result(run: UnfinishedRun, name: str) -> StepResult:
    return run.steps.get(name, StepResult.PENDING)


def _declares(run: UnfinishedRun, name: str, crash: Crash) -> bool:
    """Whether it is of a kind that declares this. A kind that is not known here declares nothing."""
    kind = CATALOG.get(run.kinds[name])
    return kind is not None and kind.crash is crash
