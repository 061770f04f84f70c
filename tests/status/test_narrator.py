"""The log tells a deploy as a story."""

from __future__ import annotations

import logging

import pytest

from agent.domain import events as facts
from agent.domain.model import RunResult, StepResult, SyncResult
from agent.status.narrator import narrate, sentence
from tests.kit.scenes import GIT_AWAY, PROBE_FAILED, Stage, pair


@pytest.fixture
def stage(caplog: pytest.LogCaptureFixture) -> Stage:
    caplog.set_level(logging.INFO, logger="emptybox")
    stage = Stage()
    narrate(stage.bus)
    return stage


def test_a_deploy_that_goes_well(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.deploy("web", "1.4.0")
    assert "web: run begins: version 1.4.0 is wanted (fetch, verify, unpack, render" in caplog.text
    assert "web: step switch done in 20 ms" in caplog.text
    assert "web: version 1.4.0 serves" in caplog.text
    assert "the release is on probation" in caplog.text
    assert "web: version 1.4.0 proved itself" in caplog.text
    assert "sync succeeded at c0ffeec0ffee in 1.5 s" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_a_rollback_names_the_reason_the_remedy_and_the_last_lines(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.5.0"), sync)
    stage.switched("web", run, sync, pair("1.5.0"))
    caplog.clear()
    stage.rolled_back("web", run, sync, pair("1.4.0"), PROBE_FAILED)
    errors = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert any(
        "run rolled-back after 4.2 s: ProbeFailed: probe: GET /healthz answered 500" in e for e in errors
    )
    assert "(mend the app and push again" in caplog.text
    assert "web:   | KeyError: 'DATABASE_URL'" in caplog.text
    assert "success" not in caplog.text
    assert "succeeded" not in caplog.text


def test_what_mends_itself_is_a_warning() -> None:
    line = sentence(facts.SyncFinished("s", SyncResult.FAILED, "", GIT_AWAY))
    assert line is not None
    assert line[0] == logging.WARNING


def test_every_result_has_a_sentence() -> None:
    for result in RunResult:
        assert sentence(facts.RunFinished("r", "s", "web", result, 1.0)) is not None
    for step in StepResult:
        assert sentence(facts.StepFinished("r", "web", "fetch", "fetch", step, 1.0)) is not None
    for sync in SyncResult:
        assert sentence(facts.SyncFinished("s", sync)) is not None


def test_progress_is_no_news() -> None:
    assert sentence(facts.StepProgress("r", "web", "fetch", 1, 2)) is None
