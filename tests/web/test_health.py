"""Probes, the scrape and the page for an ingress."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.domain import events as facts
from agent.domain.model import SyncResult
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
    assert public_progress(stage.board.apps["web"]).phase == "Updating"
    assert public_progress(None).percent is None


def test_progress_counts_the_steps_that_are_done() -> None:
    stage = Stage()
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.4.0"), sync, ("fetch", "start", "probe", "switch"))
    stage.step("web", run, "fetch", 0.1)
    stage.tell(facts.StepStarted(run, "web", "start", "start"))
    progress = public_progress(stage.board.apps["web"])
    assert (progress.phase, progress.percent) == ("Starting", 25.0)
    stage.end_sync(sync, SyncResult.FAILED)
