"""What /status says after realistic sequences of facts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.domain import events as facts
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import RunResult, StepResult, SyncResult, TriggerKind
from agent.kit.clock import rfc3339
from agent.kit.mask import secrets
from tests.kit.scenes import GIT_AWAY, PROBE_FAILED, START, Stage, condition, pair


def app(stage: Stage, name: str = "web") -> dict[str, Any]:
    picture: dict[str, Any] = stage.board.snapshot()["apps"][name]
    return picture


def conditions(picture: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in picture["conditions"]}


def test_a_snapshot_is_json_from_the_first_moment() -> None:
    stage = Stage()
    picture = json.loads(json.dumps(stage.board.snapshot()))
    assert picture["agent"]["host"] == "web-1.example.com"
    assert picture["agent"]["labels"] == {"env": "prod", "zone": "eu-1"}
    assert picture["source"]["last_sync"] is None
    assert picture["apps"] == {}
    assert picture["paused"] is None


def test_a_deployed_app_has_all_that_the_issue_demands() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    picture = app(stage)
    wanted = pair("1.4.0")
    assert picture["state"] == "running"
    assert picture["serving"] is True
    assert picture["current"]["version"] == "1.4.0"
    assert picture["current"]["commit"] == wanted.commit
    assert picture["current"]["digest"] == wanted.digest
    assert picture["current"]["since"] == "2026-11-18T11:06:40.000Z"
    assert picture["good"] == picture["current"]
    assert picture["wanted"]["spec"] == picture["current"]["spec"]
    assert picture["run"] is None
    assert picture["last_run"]["result"] == "succeeded"
    assert picture["last_failure"] is None
    assert picture["gate"] == "open"
    assert conditions(picture)["Available"] == ("True", "Serving")


def test_a_run_shows_its_steps_its_phase_and_its_progress_while_it_happens() -> None:
    stage = Stage()
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.5.0"), sync)
    stage.step("web", run, "render", 0.03)
    stage.tell(facts.StepStarted(run, "web", "fetch", "fetch"))
    stage.now += 2.0
    stage.tell(facts.StepProgress(run, "web", "fetch", 34, 80))
    picture = app(stage)["run"]
    steps = {step["name"]: step for step in picture["steps"]}
    assert list(steps)[:3] == ["fetch", "verify", "unpack"]
    assert picture["phase"] == "fetch"
    assert picture["reason"] == "version 1.5.0 is wanted"
    assert picture["seconds"] == pytest.approx(2.03)
    assert steps["render"]["state"] == "succeeded"
    assert steps["render"]["seconds"] == 0.03
    assert steps["fetch"]["state"] == "running"
    assert steps["fetch"]["seconds"] == pytest.approx(2.0)
    assert steps["fetch"]["progress"] == {"done": 34, "total": 80, "unit": "bytes"}
    assert steps["verify"]["state"] == "pending"
    assert steps["verify"]["needs"] == ["fetch"]


def test_another_attempt_of_a_step_begins_with_no_progress() -> None:
    stage = Stage()
    run = stage.begin_run("web", pair("1.5.0"), stage.begin_sync())
    stage.tell(
        facts.StepStarted(run, "web", "fetch", "fetch"),
        facts.StepProgress(run, "web", "fetch", 34, 80),
        facts.StepStarted(run, "web", "fetch", "fetch", attempt=2),
    )
    step = app(stage)["run"]["steps"][0]
    assert (step["attempt"], step["progress"]) == (2, None)


def test_what_is_told_of_another_run_changes_nothing() -> None:
    stage = Stage()
    stage.begin_run("web", pair("1.5.0"), stage.begin_sync())
    stage.tell(facts.StepFinished("run-old", "web", "fetch", "fetch", StepResult.FAILED, 1.0))
    assert app(stage)["run"]["steps"][0]["state"] == "pending"


def test_a_release_on_probation_is_no_success_yet() -> None:
    stage = Stage()
    wanted, sync = pair("1.4.0"), stage.begin_sync()
    run = stage.begin_run("web", wanted, sync)
    stage.switched("web", run, sync, wanted)
    snapshot = stage.board.snapshot()
    assert snapshot["source"]["last_sync"]["result"] == "probation"
    assert snapshot["source"]["last_success"] is None
    assert app(stage)["state"] == "probation"
    assert app(stage)["last_run"]["result"] == "probation"
    assert app(stage)["good"] is None
    assert app(stage)["serving"] is True


def test_a_rolled_back_release_is_a_success_nowhere() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0", pid=100)
    before = stage.board.snapshot()["source"]["last_success"]
    wanted, sync = pair("1.5.0"), stage.begin_sync()
    run = stage.begin_run("web", wanted, sync)
    stage.switched("web", run, sync, wanted, pid=200)
    stage.now += 5.0
    stage.rolled_back("web", run, sync, pair("1.4.0"), PROBE_FAILED)
    snapshot = stage.board.snapshot()
    picture = app(stage)
    assert snapshot["source"]["last_sync"]["result"] == "rolled-back"
    assert snapshot["source"]["last_success"] == before
    assert picture["last_run"]["result"] == "rolled-back"
    assert picture["state"] == "degraded"
    assert picture["current"]["version"] == picture["good"]["version"] == "1.4.0"
    assert picture["wanted"]["version"] == "1.5.0"
    assert conditions(picture)["Quarantined"] == ("True", "ProbeFailed")
    failure = picture["last_failure"]
    assert failure["reason"] == "ProbeFailed"
    assert failure["kind"] == "permanent"
    assert failure["run"] == run
    assert failure["log"][-1] == "KeyError: 'DATABASE_URL'"
    assert "succeeded" not in json.dumps(picture["last_run"]["result"])


def test_a_success_that_is_taken_back_later_takes_the_time_of_the_last_success_back() -> None:
    stage = Stage()
    _, first = stage.deploy("web", "1.4.0")
    at = stage.board.syncs.last_success
    stage.now += 60.0
    run, second = stage.deploy("web", "1.5.0")
    assert stage.board.syncs.last_success > at
    stage.rolled_back("web", run, second, pair("1.4.0"), PROBE_FAILED)
    assert stage.board.syncs.last_success == at
    assert stage.board.snapshot()["source"]["last_sync"]["id"] == second
    stage.end_sync(first, SyncResult.SUCCEEDED)
    assert stage.board.snapshot()["source"]["last_sync"]["id"] == second, (
        "an older sync told again is not newer"
    )


def test_a_run_that_failed_before_the_switch_leaves_what_serves_as_it_is() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.5.0"), sync)
    mismatch = FailureInfo(FailureKind.PERMANENT, "ChecksumMismatch", "sha256 differs", where="fetch")
    stage.step("web", run, "verify", 0.1, StepResult.FAILED, mismatch)
    stage.tell(
        facts.RunFinished(run, sync, "web", RunResult.FAILED, 0.5, mismatch),
        facts.AppStateChanged("web", "degraded"),
    )
    picture = app(stage)
    assert picture["current"]["version"] == "1.4.0"
    assert picture["serving"] is True
    assert picture["last_run"]["result"] == "failed"
    failed = [step for step in picture["last_run"]["steps"] if step["state"] == "failed"]
    assert failed[0]["failure"]["reason"] == "ChecksumMismatch"
    assert picture["last_failure"]["where"] == "fetch"


def test_the_end_of_a_run_nobody_saw_begin_is_kept() -> None:
    stage = Stage()
    stage.tell(facts.RunFinished("run-1", "sync-1", "web", RunResult.INTERRUPTED, 3.0))
    assert app(stage)["last_run"]["result"] == "interrupted"


def test_a_failure_told_again_with_less_keeps_its_log_lines() -> None:
    stage = Stage()
    stage.tell(facts.AppFailed("web", PROBE_FAILED, "run-1"))
    bare = FailureInfo(PROBE_FAILED.kind, PROBE_FAILED.reason, PROBE_FAILED.message)
    stage.tell(facts.RunFinished("run-1", "sync-1", "web", RunResult.FAILED, 1.0, bare))
    assert app(stage)["last_failure"]["log"] == list(PROBE_FAILED.log)


def test_a_restart_without_a_gate_does_not_serve_while_no_child_runs() -> None:
    stage = Stage()
    worker = pair("3.0")
    stage.tell(
        facts.PairCurrent("worker", worker),
        facts.AppStateChanged("worker", "running"),
        facts.ChildStarted("worker", "worker/a", 50),
        facts.AppStateChanged("worker", "updating"),
    )
    assert app(stage, "worker")["serving"] is True
    stage.tell(facts.ChildExited("worker", "worker/a", 0, None, expected=True))
    assert app(stage, "worker")["serving"] is False
    stage.tell(facts.ChildStarted("worker", "worker/b", 51))
    assert app(stage, "worker")["serving"] is True


@pytest.mark.parametrize("gate", ["closed", "holding", "maintenance"])
def test_an_app_serves_only_through_an_open_gate(gate: str) -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    stage.tell(facts.GateChanged("web", gate))
    picture = app(stage)
    assert picture["serving"] is False
    assert conditions(picture)["Available"] == ("False", "NotServing")
    assert stage.board.unready() == [f"web: running, its port is {gate}"]
    assert (stage.board.unready(page_ok=True) == []) == (gate != "closed")


def test_a_host_without_a_sync_is_not_ready_and_one_without_apps_is() -> None:
    stage = Stage()
    assert stage.board.unready() == ["no sync has succeeded yet"]
    stage.end_sync(stage.begin_sync(), SyncResult.FAILED, GIT_AWAY)
    assert stage.board.unready()
    stage.end_sync(stage.begin_sync(), SyncResult.UNCHANGED)
    assert stage.board.unready() == []


def test_what_came_back_from_disk_is_ready_before_the_first_sync() -> None:
    stage = Stage()
    stage.tell(facts.PairCurrent("web", pair("1.0")), facts.AppStateChanged("web", "running"))
    assert stage.board.unready() == []


def test_the_child_is_the_newest_that_runs_and_restarts_count_from_the_version() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0", pid=100)
    stage.tell(
        facts.ChildStarted("web", "web/new", 200),
        facts.ChildExited("web", "web/new", 1, None, expected=True),
    )
    assert app(stage)["child"]["pid"] == 100
    stage.tell(
        facts.ChildExited("web", "web/run-0002", None, 11, expected=False),
        facts.ChildRestarting("web", 0.5, "first time"),
    )
    child = app(stage)["child"]
    assert (child["pid"], child["restarts"], child["last_exit"]["signal"]) == (None, 1, 11)
    stage.deploy("web", "1.5.0", pid=300)
    assert (app(stage)["child"]["pid"], app(stage)["child"]["restarts"]) == (300, 0)


def test_a_condition_keeps_its_time_while_its_status_stays_and_goes_when_it_has_no_reason() -> None:
    stage = Stage()
    stage.tell(facts.ConditionChanged("web", condition("Degraded", True, "RolledBack", "a")))
    stage.now += 100.0
    stage.tell(facts.ConditionChanged("web", condition("Degraded", True, "RolledBack", "b")))
    (degraded,) = [c for c in app(stage)["conditions"] if c["type"] == "Degraded"]
    assert (degraded["message"], degraded["since"]) == ("b", "2026-11-18T11:06:40.000Z")
    stage.tell(facts.ConditionChanged("web", condition("Degraded", False, "")))
    assert "Degraded" not in conditions(app(stage))


def test_a_pause_is_a_member_and_a_condition_until_it_is_over() -> None:
    stage = Stage()
    stage.tell(facts.PauseChanged("weekend", "uid 0"))
    snapshot = stage.board.snapshot()
    assert snapshot["paused"] == {"message": "weekend", "by": "uid 0", "since": "2026-11-18T11:06:40.000Z"}
    assert conditions(snapshot) == {"Paused": ("True", "ByOperator")}
    stage.tell(facts.PauseChanged(None, "uid 0"))
    assert stage.board.snapshot()["paused"] is None
    assert stage.board.snapshot()["conditions"] == []


def test_syncs_triggers_and_polls_are_told() -> None:
    stage = Stage()
    stage.tell(facts.PollScheduled(START + 60, "interval"), facts.PushMissed("a" * 40))
    sync = stage.begin_sync(TriggerKind.POLL)
    source = stage.board.snapshot()["source"]
    assert source["running"][0]["id"] == sync
    assert source["running"][0]["kinds"] == ["poll"]
    assert source["next_poll"] == "2026-11-18T11:07:40.000Z"
    assert source["missed_pushes"] == 1
    assert source["last_trigger"]["verdict"] == "accepted"
    stage.end_sync(sync, SyncResult.FAILED, GIT_AWAY)
    source = stage.board.snapshot()["source"]
    assert source["running"] == []
    assert source["last_sync"]["failure"]["reason"] == "GitUnavailable"
    assert source["commit"] == "c0ffee" * 6


def test_a_removed_app_is_gone() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    stage.tell(facts.AppRemoved("web"))
    assert stage.board.snapshot()["apps"] == {}


def test_registered_secrets_do_not_reach_a_snapshot() -> None:
    secrets.add("hunter2-board-test")
    stage = Stage()
    leaky = FailureInfo(
        FailureKind.TRANSIENT,
        "ArtifactUnavailable",
        "https://bob:hunter2-board-test@releases.example.com/web.tar?token=abcdef answered 503",
        log=("password is hunter2-board-test",),
    )
    stage.tell(facts.AppFailed("web", leaky))
    text = json.dumps(stage.board.snapshot())
    assert "hunter2" not in text
    assert "abcdef" not in text
    assert "https://***@releases.example.com/web.tar?token=*** answered 503" in text


def test_a_running_migration_is_shown_with_its_start_and_the_end_expected_from_earlier_ones() -> None:
    stage = Stage()
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("2.0"), sync, ("check", "migrate", "switch"))
    stage.tell(facts.RunEstimated(run, "web", {"migrate": 90.0}))
    stage.step("web", run, "check")
    stage.tell(facts.StepStarted(run, "web", "migrate", "migrate"))
    began = stage.now
    stage.now += 30.0
    shown = {step["name"]: step for step in app(stage)["run"]["steps"]}
    assert shown["migrate"]["started"] == rfc3339(began)
    assert shown["migrate"]["expected_end"] == rfc3339(began + 90.0)
    assert shown["check"]["expected_end"] is None


def test_the_uptime_is_measured_by_a_clock_that_nobody_sets() -> None:
    stage = Stage()
    stage.board.info = replace(stage.board.info, started=1.0)  # as if the clock had been set since
    assert stage.board.snapshot()["agent"]["uptime_seconds"] < 3600
