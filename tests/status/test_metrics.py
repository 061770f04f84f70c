"""Metrics: their names pass promtool, their labels stay few, their values follow the facts."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.domain import events as facts
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import RunResult, StepResult, SyncResult, TriggerKind
from tests.kit.scenes import GIT_AWAY, PROBE_FAILED, Stage, condition, pair


def text_of(stage: Stage) -> bytes:
    return asyncio.run(stage.metrics.text())


def values(stage: Stage) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text_of(stage).decode())
        for sample in family.samples
    }


def value(stage: Stage, name: str, **labels: str) -> float | None:
    return values(stage).get((name, frozenset(labels.items())))


def busy_stage() -> Stage:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    sync = stage.begin_sync(TriggerKind.POLL)
    run = stage.begin_run("web", pair("1.5.0"), sync)
    stage.switched("web", run, sync, pair("1.5.0"))
    stage.rolled_back("web", run, sync, pair("1.4.0"), PROBE_FAILED)
    stage.tell(
        facts.PushMissed("a" * 40),
        facts.ChildRestarting("web", 0.5, "first time"),
        facts.RequestsAnswered("web", 3, "page"),
        facts.RequestsAnswered("web", 2, "held"),
        facts.TriggerHeard(TriggerKind.PUSH, "rejected", "SignatureWrong"),
    )
    stage.metrics.loop_lag(0.02)
    stage.metrics.loop_lag(0.001)
    return stage


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing (Debian package prometheus)")
        pytest.skip("promtool is missing (Debian package prometheus)")
    for stage in (Stage(), busy_stage()):
        text = text_of(stage)
        assert text.endswith(b"\n")
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_no_sample_is_told_twice_and_buckets_never_fall() -> None:
    text = text_of(busy_stage()).decode()
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))
    for family in text_string_to_metric_families(text):
        buckets = [
            s.value for s in family.samples if s.name.endswith("_bucket") and s.labels["kind"] == "fetch"
        ]
        assert buckets == sorted(buckets)


def test_runs_and_syncs_are_counted_once_with_their_last_word() -> None:
    stage = busy_stage()
    assert value(stage, "emptybox_runs_total", app="web", result="succeeded") == 1
    assert value(stage, "emptybox_runs_total", app="web", result="rolled-back") == 1
    assert value(stage, "emptybox_runs_total", app="web", result="probation") is None
    assert value(stage, "emptybox_syncs_total", result="succeeded") == 1
    assert value(stage, "emptybox_syncs_total", result="rolled-back") == 1


def test_a_failure_is_counted_once_though_it_is_told_twice() -> None:
    stage = busy_stage()
    assert value(stage, "emptybox_failures_total", app="web", reason="ProbeFailed") == 1
    stage.end_sync(stage.begin_sync(), SyncResult.FAILED, GIT_AWAY)
    assert value(stage, "emptybox_failures_total", app="", reason="GitUnavailable") == 1


def test_a_reason_from_elsewhere_makes_no_label_of_its_own() -> None:
    stage = Stage()
    for number in range(100):
        stage.tell(facts.AppFailed("web", FailureInfo(FailureKind.PERMANENT, f"Reason{number}", "")))
    assert value(stage, "emptybox_failures_total", app="web", reason="Other") == 100


def test_each_refusal_of_a_webhook_is_counted_by_forge_and_reason_within_bounds() -> None:
    stage = Stage()
    for forge, reason in (("github", "SignatureWrong"), ("github", "SignatureWrong"), ("", "ForgeUnknown")):
        stage.tell(facts.TriggerHeard(TriggerKind.PUSH, "rejected", reason, detail=forge))
    name = "emptybox_webhook_rejected_total"
    assert value(stage, name, forge="github", reason="SignatureWrong") == 2
    assert value(stage, name, forge="unknown", reason="ForgeUnknown") == 1
    for number in range(1000):
        stage.tell(facts.TriggerHeard(TriggerKind.PUSH, "rejected", f"Reason{number}", detail="x"))
    assert len([found for found, _ in values(stage) if found == name]) <= 101
    assert value(stage, name, forge="github", reason="SignatureWrong") == 2


def test_step_kinds_and_verdicts_from_elsewhere_are_bounded_too() -> None:
    stage = Stage()
    for number in range(1000):
        stage.tell(
            facts.StepFinished("r", "web", f"s{number}", f"kind{number}", StepResult.SUCCEEDED, 0.1),
            facts.TriggerHeard(TriggerKind.PUSH, f"verdict{number}"),
        )
    names = [name for name, _ in values(stage)]
    assert names.count("emptybox_step_duration_seconds_count") <= 41
    assert value(stage, "emptybox_triggers_total", source="push", verdict="other") == 1000


def test_steps_that_succeeded_or_failed_are_timed_and_no_others() -> None:
    stage = Stage()
    for result in StepResult:
        stage.tell(facts.StepFinished("r", "web", "fetch", "fetch", result, 0.1))
    assert value(stage, "emptybox_step_duration_seconds_count", app="web", kind="fetch") == 2


def test_gauges_follow_the_picture() -> None:
    stage = busy_stage()
    current = pair("1.4.0")
    info = {"app": "web", "version": "1.4.0", "commit": current.commit, "digest": current.digest}
    assert value(stage, "emptybox_app_info", **info) == 1
    assert value(stage, "emptybox_app_up", app="web") == 1
    assert value(stage, "emptybox_app_state", app="web", state="degraded") == 1
    assert value(stage, "emptybox_app_state", app="web", state="running") == 0
    assert value(stage, "emptybox_app_quarantined", app="web") == 1
    assert value(stage, "emptybox_app_run_in_progress", app="web") == 0
    assert value(stage, "emptybox_build_info", version="0.1.0") == 1
    assert value(stage, "emptybox_missed_pushes_total") == 1
    assert value(stage, "emptybox_child_restarts_total", app="web") == 1
    assert value(stage, "emptybox_maintenance_requests_total", app="web", how="page") == 3
    assert value(stage, "emptybox_maintenance_requests_total", app="web", how="held") == 2
    assert value(stage, "emptybox_triggers_total", source="push", verdict="rejected") == 1
    assert value(stage, "emptybox_event_loop_lag_seconds") == 0.001
    assert value(stage, "emptybox_event_loop_lag_max_seconds") == 0.02
    stage.tell(facts.ConditionChanged("web", condition("Quarantined", False, "Retried")))
    assert value(stage, "emptybox_app_quarantined", app="web") == 0


def test_a_new_version_replaces_the_old_one_in_the_info() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    stage.deploy("web", "1.5.0")
    assert [name for name, _ in values(stage)].count("emptybox_app_info") == 1


def test_the_time_of_the_last_success_is_that_of_the_start_until_there_is_one() -> None:
    stage = Stage()
    stage.now += 90.0
    assert value(stage, "emptybox_last_successful_sync_timestamp_seconds") == 0
    assert value(stage, "emptybox_seconds_since_last_successful_sync") == 90
    stage.end_sync(stage.begin_sync(), SyncResult.UNCHANGED)
    stage.now += 5.0
    assert value(stage, "emptybox_last_successful_sync_timestamp_seconds") == stage.now - 5
    assert value(stage, "emptybox_seconds_since_last_successful_sync") == 5


def test_a_removed_app_leaves_no_series_behind() -> None:
    stage = busy_stage()
    stage.tell(facts.AppRemoved("web"))
    assert not [labels for _, labels in values(stage) if ("app", "web") in labels]
    stage.tell(facts.RunFinished("r", "s", "web", RunResult.SUCCEEDED, 1.0))
    assert value(stage, "emptybox_runs_total", app="web", result="succeeded") == 1
