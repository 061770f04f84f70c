"""Managed files changed by hand: found, put right or told; and not for ever. The whole agent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box

# Writes down how often it was told to read its file, and what it read.
PROGRAM = """
import signal, sys, time
def read(*_):
    with open("etc/app.conf") as conf, open(sys.argv[1], "a") as out:
        out.write(conf.read())
signal.signal(signal.SIGUSR1, read)
read()
while True:
    time.sleep(1)
"""


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with Box(tmp_path / "box") as box:
        yield box


def state(box: Box, content: str = "wanted\n", **parts: Any) -> dict[str, Any]:
    app = {
        "version": "1",
        "files": [
            {"content": content, "target": "etc/app.conf", "on_change": {"signal": "USR1"}},
            {"content": "quiet\n", "target": "etc/quiet.conf", "on_change": "none"},
        ],
        "run": {"command": [sys.executable, "-S", "-c", PROGRAM, str(read_by(box))]},
        "health": {"alive": "100ms", "probation": "0"},
        "drift": {"every": "200ms"},
        **parts,
    }
    return {"schema": 1, "apps": {"app": app}}


def read_by(box: Box) -> Path:
    return box.directory / "read"


async def has_read(box: Box, text: str) -> None:
    """The program has read its file: at its start, and each time it was told to."""

    async def found() -> bool:
        return read_by(box).exists() and read_by(box).read_text() == text

    await box.until(found)


def file(box: Box, name: str = "app.conf") -> Path:
    return box.data / "apps/app/current/config/etc" / name


async def drifted(box: Box, reason: str | None) -> None:
    """Until the condition says so; None: that nothing is drifted."""

    async def told() -> bool:
        for condition in (await box.app("app"))["conditions"]:
            if condition["type"] == "Drifted":
                return bool(condition["reason"] == reason if reason else condition["status"] == "False")
        return False

    await box.until(told)


async def test_a_changed_file_is_put_right_and_the_program_told_of_it(box: Box) -> None:
    await box.commit(state(box))
    await box.start()
    await box.app_is("app", state="running")
    pid = (await box.app("app"))["child"]["pid"]
    await has_read(box, "wanted\n")
    file(box).write_text("by hand\n")
    await has_read(box, "wanted\nwanted\n")
    assert file(box).read_text() == "wanted\n"
    await drifted(box, None)
    app = await box.app("app")
    assert app["child"]["pid"] == pid
    run = (await box.history())[0]
    assert run["reason"] == "etc/app.conf changed on this host"
    assert [step["name"] for step in run["steps"]] == ["repair", "reload", "probe"]
    assert 'emptybox_drift_total{app="app",how="repaired"} 1.0' in await box.metrics()


async def test_what_was_removed_or_added_is_put_right_without_telling_who_did_not_ask(box: Box) -> None:
    await box.commit(state(box))
    await box.start()
    await box.app_is("app", state="running")
    await has_read(box, "wanted\n")
    file(box, "quiet.conf").unlink()
    stranger = file(box).parent / "stranger.conf"
    stranger.write_text("include me\n")

    async def right() -> bool:
        return not stranger.exists() and file(box, "quiet.conf").exists()

    await box.until(right)
    await drifted(box, None)
    assert file(box, "quiet.conf").read_text() == "quiet\n"
    assert read_by(box).read_text() == "wanted\n"


async def test_report_only_tells_and_touches_nothing(box: Box) -> None:
    await box.commit(state(box, drift={"every": "200ms", "action": "report"}))
    await box.start()
    await box.app_is("app", state="running")
    file(box).write_text("by hand\n")
    await drifted(box, "FilesChanged")
    assert file(box).read_text() == "by hand\n"
    assert 'emptybox_drift_total{app="app",how="told"} 1.0' in await box.metrics()
    file(box).write_text("wanted\n")
    await drifted(box, None)


async def test_who_changes_it_again_and_again_is_given_up_on(box: Box) -> None:
    await box.commit(state(box, drift={"every": "100ms"}))
    await box.start()
    await box.app_is("app", state="running")

    async def spoilt() -> bool:
        if file(box).read_text() == "wanted\n":
            file(box).write_text("by hand\n")
        return any(
            condition["reason"] == "RepairsSpent" for condition in (await box.app("app"))["conditions"]
        )

    await box.until(spoilt)
    runs = [run for run in await box.history() if "changed on this host" in run["reason"]]
    assert len(runs) == 5
    await box.webhook(await box.commit(state(box, "newer\n")), wait=True)
    await box.app_is("app", state="running")
    await drifted(box, None)
    assert file(box).read_text() == "newer\n"


async def test_a_program_never_starts_on_a_changed_file(box: Box) -> None:
    await box.commit(state(box, drift={"action": "ignore"}))
    await box.start()
    pid = (await box.app_is("app", state="running"))["child"]["pid"]
    await has_read(box, "wanted\n")
    file(box).write_text("by hand\n")
    os.kill(pid, signal.SIGKILL)
    await has_read(box, "wanted\nwanted\n")
