"""/status and / in the form that was asked for."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from agent.domain import events as facts
from agent.domain.errors import FailureInfo, FailureKind
from agent.web.negotiate import HTML, JSON, TEXT, choose
from tests.kit.faces import hall
from tests.kit.scenes import PROBE_FAILED, Stage, pair

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def rolled_back() -> Stage:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    wanted, sync = pair("1.5.0"), stage.begin_sync()
    run = stage.begin_run("web", wanted, sync)
    stage.switched("web", run, sync, wanted)
    stage.rolled_back("web", run, sync, pair("1.4.0"), PROBE_FAILED)
    return stage


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("text/plain", TEXT),
        ("text/*", TEXT),
        ("text/html", HTML),
        (BROWSER, HTML),
        ("text/plain, application/json;q=0.9", TEXT),
        ("text/html;q=0.2, text/plain;q=0.3", TEXT),
        ("text/html;q=0, */*", JSON),
        ("TEXT/PLAIN;Q=1.0", TEXT),
        ("image/png", JSON),
        ("text/plain;q=nonsense", JSON),
        ("," * 10_000, JSON),
    ],
)
def test_the_accept_header_decides_the_form(accept: str, form: str) -> None:
    assert choose(accept, (JSON, TEXT, HTML)) == form


async def test_programs_get_indented_json(tmp_path: Path) -> None:
    async with hall(tmp_path, stage=rolled_back()) as it:
        answer = await it.admin.get("/status")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Vary"] == "Accept"
    assert answer.text.startswith('{\n  "agent": {\n')
    assert answer.text.endswith("}\n")
    web = answer.json["apps"]["web"]
    assert web["current"]["version"] == "1.4.0"
    assert web["last_failure"]["log"][-1] == "KeyError: 'DATABASE_URL'"


async def test_terminals_get_text(tmp_path: Path) -> None:
    async with hall(tmp_path, stage=rolled_back()) as it:
        answer = await it.socket.get("/status", "text/plain")
        overview = await it.socket.get("/")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "web-1.example.com: web in need of attention\n" in answer.text
    assert "web: degraded\n  current  1.4.0 commit" in answer.text
    assert "\n  wanted   1.5.0 commit" in answer.text
    assert "  ! Quarantined: ProbeFailed:" in answer.text
    assert "    | KeyError: 'DATABASE_URL'\n" in answer.text
    assert overview.headers["Content-Type"].startswith("text/plain")


async def test_foreign_text_cannot_steer_a_terminal(tmp_path: Path) -> None:
    evil = FailureInfo(FailureKind.PERMANENT, "ProbeFailed", "one\ntwo\x1b[2J", log=("\x1b]0;title\x07",))
    stage = Stage()
    stage.tell(facts.AppFailed("web", evil))
    async with hall(tmp_path, stage=stage) as it:
        text = (await it.socket.get("/status", "text/plain")).text
        logs = (await it.socket.get("/logs?app=web")).text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text + logs)
    assert "two\\x1b[2J" in text


@pytest.mark.parametrize("path", ["/status", "/"])
async def test_browsers_get_a_page_that_needs_nothing_from_elsewhere(path: str, tmp_path: Path) -> None:
    async with hall(tmp_path, stage=rolled_back()) as it:
        answer = await it.admin.get(path, BROWSER)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text)
    assert not re.search(r"<[^>]+ (?:style|on[a-z]+)=", answer.text)
    assert '<noscript><meta http-equiv="refresh"' in answer.text
    assert "ProbeFailed" in answer.text
    assert "rolled-back" in answer.text


async def test_a_page_escapes_whatever_is_told(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>`<b>`'
    stage = Stage(labels={"<i>": evil})
    stage.tell(
        facts.AppWanted(evil, pair("1"), evil),
        facts.AppStateChanged(evil, evil),
        facts.AppFailed(evil, FailureInfo(FailureKind.PERMANENT, evil, evil, evil, evil, (evil,))),
        facts.PauseChanged(evil, evil),
    )
    async with hall(tmp_path, stage=stage) as it:
        page = (await it.admin.get("/", "text/html")).text
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<code>&lt;b&gt;</code>" in page


async def test_a_page_can_be_made_of_every_scene(tmp_path: Path) -> None:
    empty, running = Stage(), Stage()
    run = running.begin_run("web", pair("1.0"), running.begin_sync())
    running.step("web", run, "render", 0.02)
    running.tell(
        facts.StepStarted(run, "web", "fetch", "fetch", attempt=3),
        facts.StepProgress(run, "web", "fetch", 10, 0),
        facts.ChildExited("web", "c", None, 9, expected=False),
        facts.ChildRestarting("web", 0.5, "why"),
    )
    for stage in (empty, running):
        async with hall(tmp_path, stage=stage) as it:
            for accept in ("text/html", "text/plain"):
                assert (await it.admin.get("/", accept)).status == 200
