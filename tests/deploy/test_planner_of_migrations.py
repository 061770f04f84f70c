"""Where migrations stand in a plan, by their kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.planned_migrations import after
from agent.deploy.planner import Situation, plan
from agent.domain.model import NoChange, Plan
from agent.domain.spec import AppSpec, ManagedFile, MigrationKind, MigrationSpec, OnChange
from tests.deploy.test_planner import WEB, needs, other, steps

OVER = Situation(current=WEB, alive=True, in_store=True)


def wanted(*kinds: MigrationKind, **parts: object) -> AppSpec:
    migrations = tuple(
        MigrationSpec(name=f"m{n}", command=("m",), kind=kind, down=("d",)) for n, kind in enumerate(kinds)
    )
    return other(version="2.0", env={"A": "b"}, migrate=migrations, **parts)


def test_an_expand_runs_beside_the_old_version_and_an_exclusive_after_its_stop() -> None:
    outcome = plan(wanted(MigrationKind.EXPAND, MigrationKind.EXCLUSIVE, MigrationKind.EXPAND), OVER)
    found = steps(outcome)
    assert found[found.index("migrate m0") :] == [
        "migrate m0", "stop", "migrate m1", "migrate m2", "start", "probe", "switch",
    ]  # fmt: skip
    assert needs(outcome)["start"] == {"migrate m2"}


@given(st.lists(st.sampled_from(list(MigrationKind)), max_size=5), st.booleans())
def test_whatever_the_kinds_they_run_in_order_and_nobody_is_beside_one_that_runs_alone(
    kinds: list[MigrationKind], alive: bool
) -> None:
    outcome = plan(wanted(*kinds), Situation(current=WEB, alive=alive, in_store=True))
    found = steps(outcome)
    due = [f"m{n}" for n, kind in enumerate(kinds) if kind is not MigrationKind.CONTRACT]
    assert isinstance(outcome, Plan)
    ran = [str(s.options["migration"]) for s in outcome.steps if s.kind == "migrate"]
    assert ran == due
    alone = [n for n, kind in enumerate(kinds) if kind.alone]
    assert ("stop" in found) is (alive and bool(alone))
    if alive and alone:
        name = f"migrate m{alone[0]}" if len(kinds) > 1 else "migrate"
        assert found.index("stop") < found.index(name) < found.index("start")


def test_contract_is_planned_only_once_it_is_due_and_touches_nothing_that_serves() -> None:
    spec = wanted(MigrationKind.CONTRACT)
    serving = Situation(current=spec, alive=True, in_store=True)
    assert isinstance(plan(spec, serving), NoChange)
    outcome = plan(spec, replace(serving, contracts=("m0",)))
    assert steps(outcome) == ["check", "migrate"]
    assert isinstance(outcome, Plan)
    assert outcome.contracts
    assert outcome.repairs
    due = replace(serving, contracts=("m0",))
    assert isinstance(plan(spec, replace(due, paused="no")), NoChange)
    assert isinstance(plan(spec, replace(due, frozen="no")), NoChange)


def test_what_cannot_be_borne_is_taken_back_before_the_older_version_migrates_and_starts() -> None:
    outcome = plan(wanted(MigrationKind.EXPAND), replace(OVER, downs=("schema",)))
    found = steps(outcome)
    assert found[found.index("stop") :] == ["stop", "down", "migrate", "start", "probe", "switch"]


def test_a_changed_sql_file_is_no_mere_reload() -> None:
    def spec(text: bytes, target: str = "sql/V1__a.sql") -> AppSpec:
        file = ManagedFile(target=target, content=text, on_change=OnChange.NONE)
        migrate = (MigrationSpec(name="m", sql="sql", database="sqlite:x"),)
        return other(files=(file,), migrate=migrate)

    outcome = plan(spec(b"2"), Situation(current=spec(b"1"), alive=True, in_store=True))
    assert "migrate" in steps(outcome)
    elsewhere = plan(spec(b"2", "x"), Situation(current=spec(b"1", "x"), alive=True, in_store=True))
    assert "migrate" not in steps(elsewhere)


@pytest.mark.parametrize(
    ("kinds", "down", "told"),
    [
        ([MigrationKind.EXPAND], False, "a flip"),
        ([MigrationKind.EXCLUSIVE], False, "a flip"),
        ([MigrationKind.REVERSIBLE], True, "runs the down of m0"),
        ([MigrationKind.REVERSIBLE], False, "only with rollback: {down: true}"),
        ([MigrationKind.REVERSIBLE, MigrationKind.IRREVERSIBLE], True, "not across m1"),
    ],
)
def test_a_plan_says_what_a_rollback_would_do(kinds: list[MigrationKind], down: bool, told: str) -> None:
    spec = wanted(*kinds, down=down)
    outcome = plan(spec, OVER)
    assert isinstance(outcome, Plan)
    assert told in str(after(spec, outcome)["rollback"])
