"""Probes, the scrape and the page for an ingress."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.domain import events as facts
from agent.domain.model import PlannedStep, SyncResult
from agent.web.maintenance import public_progress
from tests.kit.faces import hall
from tests.kit.scenes import PROBE_FAILED, Stage, pair


async def test_the_agent_is_alive_whatever_its_apps_do(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.face.shutting_down()
        answer = await it.admin.get("/healthz")
    assert (answer.status, answer.text) == (200, "alive\n")


async def test_ready_means_that_every_app_serves(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        assert (await it.admin.get("/readyz")).text == "no sync has succeeded yet\n"
        it.stage.deploy("web", "1.4.0")
        it.stage.deploy("api", "2.0.0")
        ready = await it.admin.get("/readyz")
        assert (ready.status, ready.text) == (200, "ready\n")
        it.stage.tell(facts.AppStateChanged("api", "failed"))
        answer = await it.admin.get("/readyz", "application/json")
    assert answer.status == 503
    assert answer.json == {"ready": False, "reasons": ["api: failed, its port is open"]}


async def test_a_page_or_hold_on_purpose_can_count_as_ready(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.stage.deploy("web", "1.4.0")
        it.stage.tell(facts.GateChanged("web", "holding"))
        assert (await it.admin.get("/readyz")).status == 503
        assert (await it.admin.get("/readyz?page=ok")).status == 200


async def test_an_agent_that_shuts_down_is_not_ready(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        it.stage.deploy("web", "1.4.0")
        it.face.shutting_down()
        answer = await it.admin.get("/readyz?page=ok")
    assert (answer.status, answer.text) == (503, "the agent is shutting down\n")


async def test_the_scrape_says_what_format_it_is(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.admin.get("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nemptybox_build_info{" in answer.text
    assert answer.text.endswith("\n")


async def test_the_ingress_page_is_there_only_while_an_app_does_not_serve(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        assert (await it.admin.get("/maintenance")).status == 204
        it.stage.deploy("web", "1.4.0")
        it.stage.deploy("api", "2.0.0")
        sync = it.stage.begin_sync()
        it.stage.begin_run("web", pair("1.5.0"), sync)
        assert (await it.admin.get("/maintenance")).status == 204, "it serves while it updates"
        it.stage.tell(facts.GateChanged("web", "maintenance"))
        assert (await it.admin.get("/maintenance?app=api")).status == 204
        for path in ("/maintenance", "/maintenance?app=web"):
            answer = await it.admin.get(path, "text/html")
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "10"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.text.startswith("<!doctype html>")
        program = await it.admin.get("/maintenance", "application/json")
    assert program.json["status"] == 503


async def test_the_ingress_page_tells_nothing_internal(tmp_path: Path) -> None:
    stage = Stage()
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.4.0"), sync)
    stage.tell(facts.StepStarted(run, "web", "fetch", "fetch"), facts.AppFailed("web", PROBE_FAILED, run))
    async with hall(tmp_path, stage=stage) as it:
        for accept in ("text/html", "application/json", "text/plain"):
            text = (await it.admin.get("/maintenance", accept)).text
            assert "Downloading" in text
            for internal in ("1.4.0", "ProbeFailed", "git.example.com", "web-1.example", "run-"):
                assert internal not in text


@pytest.mark.parametrize("state", ["empty", "failed", "maintenance"])
def test_progress_without_a_run_is_just_an_update(state: str) -> None:
    stage = Stage()
    stage.tell(facts.AppStateChanged("web", state))
    assert public_progress(stage.board.apps["web"], stage.now).phase == "Updating"
    assert public_progress(None, stage.now).percent is None


def test_progress_counts_the_steps_that_are_done() -> None:
    stage = Stage()
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.4.0"), sync, ("fetch", "start", "probe", "switch"))
    stage.step("web", run, "fetch", 0.1)
    stage.tell(facts.StepStarted(run, "web", "start", "start"))
    progress = public_progress(stage.board.apps["web"], stage.now)
    assert (progress.phase, progress.percent) == ("Starting", 25.0)
    stage.end_sync(sync, SyncResult.FAILED)


USUAL = {"fetch": 10.0, "start": 1.0, "probe": 4.0, "switch": 1.0}


def updating(steps: tuple[str, ...] = ("fetch", "start", "probe", "switch", "drain")) -> tuple[Stage, str]:
    """A stage with a run that begins."""
    stage = Stage()
    return stage, stage.begin_run("web", pair("1.4.0"), stage.begin_sync(), steps)


def test_what_is_left_is_told_as_earlier_runs_took_until_the_new_version_serves() -> None:
    stage, run = updating()
    stage.tell(facts.RunEstimated(run, "web", USUAL))
    app = stage.board.apps["web"]
    assert public_progress(app, stage.now).left == 16
    stage.step("web", run, "fetch", 2.0)
    progress = public_progress(app, stage.now)
    assert (progress.left, progress.percent) == (6, 25)
    stage.step("web", run, "start", 1.0)
    stage.tell(facts.StepStarted(run, "web", "probe", "probe"))
    assert public_progress(app, stage.now + 3.0).left == 2
    assert public_progress(app, stage.now + 5.0).left == 1
    told = app.as_json(stage.now + 3.0)["run"]
    assert (told["phase"], told["seconds_left"]) == ("probe", 2.0)


def test_a_step_that_is_late_ends_the_estimate_and_that_is_said() -> None:
    stage, run = updating()
    stage.tell(facts.RunEstimated(run, "web", USUAL), facts.StepStarted(run, "web", "fetch", "fetch"))
    app = stage.board.apps["web"]
    assert public_progress(app, stage.now + 21.0).left == 6
    late = public_progress(app, stage.now + 22.5)
    assert (late.detail, late.left, late.percent) == ("longer than usual", None, None)
    stage.tell(facts.StepProgress(run, "web", "fetch", 3 << 20, 8 << 20))
    assert public_progress(app, stage.now + 22.5).detail == "3.0 of 8.0 MiB, longer than usual"


@pytest.mark.parametrize("missing", ["fetch", "probe"])
def test_a_step_that_no_earlier_run_had_leaves_nothing_to_estimate(missing: str) -> None:
    stage, run = updating()
    usual = {name: seconds for name, seconds in USUAL.items() if name != missing}
    stage.tell(facts.RunEstimated(run, "web", usual))
    assert public_progress(stage.board.apps["web"], stage.now).left is None
    stage.step("web", run, "fetch", 1.0)
    left = public_progress(stage.board.apps["web"], stage.now).left
    assert left == (6 if missing == "fetch" else None)


def test_steps_beside_one_another_count_once() -> None:
    stage = Stage()
    steps = [("fetch", ()), ("task a", ("fetch",)), ("task b", ("fetch",)), ("switch", ("task a", "task b"))]
    planned = tuple(PlannedStep(name, "task", "", needs) for name, needs in reversed(steps))
    usual = {"fetch": 1.0, "task a": 20.0, "task b": 5.0, "switch": 1.0}
    stage.tell(facts.RunStarted("r", "s", "web", "", planned), facts.RunEstimated("r", "web", usual))
    assert public_progress(stage.board.apps["web"], stage.now).left == 22
    stage.tell(facts.RunEstimated("another", "web", {}))
    assert public_progress(stage.board.apps["web"], stage.now).left == 22
