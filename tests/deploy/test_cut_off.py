"""Steps say what the agent's death in them means, and what becomes of them is as they say."""

from __future__ import annotations

import pytest

from agent.deploy.catalog import CATALOG
from agent.deploy.cut_off import to_finish, to_take_back, turns
from agent.deploy.journal_rows import UnfinishedRun
from agent.deploy.run import Crash, RunContext, Step
from agent.deploy.steps.fetch import Fetch
from agent.domain.model import PlannedStep, RunResult, StepResult, SyncResult


@pytest.mark.parametrize("kind", CATALOG)
def test_every_kind_of_step_declares_what_a_crash_in_it_means(kind: str) -> None:
    assert isinstance(vars(type(CATALOG[kind]))["crash"], Crash)


def test_a_kind_of_step_that_declares_nothing_or_leaves_it_to_another_one_is_refused() -> None:
    with pytest.raises(TypeError, match="what a crash in it means"):

        class Silent(Step):
            kind = "silent"

            def deadline(self, context: RunContext) -> float:
                return 1.0

            async def run(self, context: RunContext, step: PlannedStep) -> None:
                return

    with pytest.raises(TypeError, match="what a crash in it means"):

        class Heir(Fetch):
            kind = "heir"


def test_each_way_to_declare_it_is_used_by_steps_that_have_it() -> None:
    declared = {crash: {kind for kind, step in CATALOG.items() if step.crash is crash} for crash in Crash}
    assert declared[Crash.UNDO] == {"stop", "start", "canary", "rollout"}
    assert declared[Crash.RESUME] == {
        "migrate", "contract", "down", "switch", "drain", "record", "unplace",
    }  # fmt: skip
    for kind in declared[Crash.UNDO]:
        assert CATALOG[kind].undo is not None, f"{kind} cannot be taken back"


def run(**steps: StepResult) -> UnfinishedRun:
    """A run of an overlap in which the agent died."""
    kinds = {name: name for name in steps}
    return UnfinishedRun(
        "run-1", "sync-1", "web", "spec", "2.0", "0" * 40, RunResult.RUNNING, SyncResult.RUNNING, 0.0, (),
        {name: result for name, result in steps.items() if result is not StepResult.PENDING}, kinds,
    )  # fmt: skip


def test_a_run_whose_release_serves_has_what_was_cut_off_finished() -> None:
    cut = run(
        fetch=StepResult.SUCCEEDED,
        start=StepResult.SUCCEEDED,
        switch=StepResult.RUNNING,
        drain=StepResult.CANCELLED,
    )
    assert list(to_finish(cut)) == ["switch", "drain"]
    assert to_finish(run(switch=StepResult.SUCCEEDED, drain=StepResult.FAILED)) == {}


def test_a_run_whose_release_serves_had_done_what_comes_before_even_if_that_was_not_written() -> None:
    cut = run(
        fetch=StepResult.SUCCEEDED,
        start=StepResult.RUNNING,
        probe=StepResult.PENDING,
        switch=StepResult.PENDING,
        drain=StepResult.PENDING,
        unplace=StepResult.SKIPPED,
        after=StepResult.RUNNING,
    )
    assert list(to_finish(cut)) == ["start", "probe", "switch", "drain"]


def test_a_run_that_does_something_for_what_serves_anyway_does_not_make_it_serve() -> None:
    assert turns(run(fetch=StepResult.SUCCEEDED, switch=StepResult.PENDING))
    assert not turns(run(check=StepResult.SUCCEEDED, contract=StepResult.RUNNING))


def test_what_had_begun_of_another_run_is_taken_back_and_the_rest_is_done_anew() -> None:
    cut = run(
        render=StepResult.RUNNING,
        stop=StepResult.SUCCEEDED,
        start=StepResult.FAILED,
        canary=StepResult.RUNNING,
        rollout=StepResult.SKIPPED,
        migrate=StepResult.CANCELLED,
    )
    assert to_take_back(cut, serves=True) == ["stop", "start", "canary"]
    assert to_take_back(cut, serves=False) == ["start", "canary"]


def test_a_kind_that_a_newer_version_knew_declares_nothing_here() -> None:
    assert to_take_back(run(teleport=StepResult.RUNNING), serves=True) == []
