"""What goes wrong before the switch: the old version serves throughout, and the error says what to do.

Each test deploys 1.0, then something broken under load, and looks at what everyone is told.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.unruly import Unruly
from tests.kit.world import World


@dataclass
class Told:
    """What everyone was told of a failure: the webhook's answer, the app in /status, the newest run."""

    answer: dict[str, Any] = field(default_factory=dict)
    app: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def old_serves(world: World, version: str = "1.0") -> AsyncIterator[Load]:
    """Load on the port meanwhile: nothing but answers of the version, and only one puppet afterwards."""
    async with Load(world.box.port) as load:
        yield load
        await world.box.serving(version)
    assert load.failures == []
    assert set(load.answers) == {version}
    await world.only(version)


async def fails(world: World, version: str = "2.0", result: str = "failed", **parts: Any) -> Told:
    """Push a version that cannot be deployed; checks that nobody says success, and returns what is said."""
    box = world.box
    async with old_serves(world):
        commit = await world.deploy(version, **parts)
        status, answer = await box.webhook(commit, wait=True)
        app = await box.app_is(state="degraded", run=None, current__version="1.0", good__version="1.0")
    assert (status, answer["result"]) == (409, "failed")
    run = (await box.history())[0]
    assert (run["version"], run["result"]) == (version, result)
    assert run["failure"]["reason"] == answer["failure"]["reason"] == app["last_failure"]["reason"]
    assert run["commit"] == commit
    assert app["wanted"]["version"] == version
    assert app["current"]["version"] == app["good"]["version"] == "1.0"
    metrics = await box.metrics()
    assert f'emptybox_runs_total{{app="web",result="{result}"}} 1.0' in metrics
    assert 'emptybox_runs_total{app="web",result="succeeded"} 1.0' in metrics
    assert 'emptybox_app_up{app="web"} 1.0' in metrics
    await world.tidy()
    return Told(answer["failure"], app, run)


async def quarantined(world: World, told: Told) -> None:
    """The same commit again is refused at once, without a run; another version goes through."""
    box = world.box
    runs = len(await box.history())
    status, answer = await box.webhook(told.run["commit"], wait=True)
    assert (status, answer["result"]) == (409, "failed")
    assert answer["failure"]["reason"] == told.answer["reason"]
    assert len(await box.history()) == runs
    assert condition(await box.app(), "Quarantined")["status"] == "True"
    await world.deploy("3.0", push=True)
    app = await box.proven("3.0")
    assert condition(app, "Quarantined")["status"] == "False"


def condition(app: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of an app in /status."""
    found: dict[str, Any] = next((c for c in app["conditions"] if c["type"] == kind), {"status": None})
    return found


def migration(world: World, text: str) -> list[dict[str, Any]]:
    """One migration: a line of sh."""
    return [{"name": "schema", "command": world.shell(text)}]


@pytest.fixture
async def world(box: Box) -> World:
    world = World(box)
    await world.running()
    return world


async def test_a_wrong_checksum_is_refused_for_good(world: World) -> None:
    artifact = {**world.artifact("2.0"), "checksum": "sha256:" + "0" * 64}
    told = await fails(world, artifact=artifact)
    assert told.answer["reason"] == "ChecksumMismatch"
    assert "0" * 64 in told.answer["message"]
    assert told.answer["where"].endswith("web-2.0.tar.gz")
    steps = {step["name"]: step["result"] for step in told.run["steps"]}
    assert steps["verify"] == "failed"
    assert steps["switch"] == "skipped"
    await quarantined(world, told)


async def test_an_artifact_that_is_not_there_is_refused_for_good(box: Box) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        missing = {**world.artifact("2.0"), "url": f"http://127.0.0.1:{server.port}/nowhere.tar.gz"}
        told = await fails(world, artifact=missing)
        assert told.answer["reason"] == "ArtifactNotFound"
        assert "404" in told.answer["message"]
        assert "nowhere.tar.gz" in told.answer["where"]
        assert told.answer["remedy"]
        await quarantined(world, told)


@pytest.mark.parametrize("trouble", ["away", "503"])
async def test_an_artifact_server_in_trouble_is_asked_again_until_it_is_back(box: Box, trouble: str) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        async with Load(box.port) as load:
            commit = await world.deploy("2.0")
            if trouble == "away":
                await server.stop()
            else:
                server.status = 503
            await box.webhook(commit)

            async def tried_again() -> bool:
                run = (await box.app())["run"]
                steps = run["steps"] if run else []
                return any(s["name"] == "fetch" and s["attempt"] > 1 for s in steps)

            await box.until(tried_again)
            assert (await box.app())["current"]["version"] == "1.0"
            server.status = 200
            if trouble == "away":
                await server.start()
            await box.proven("2.0")
        assert load.failures == []
        assert set(load.answers) == {"1.0", "2.0"}
        assert condition(await box.app(), "Quarantined")["status"] != "True"


async def test_a_failing_migration_changes_nothing_and_shows_its_last_lines(world: World) -> None:
    command = "echo before; echo 'no such column: colour' >&2; exit 3"
    told = await fails(world, migrate=migration(world, command))
    assert told.answer["reason"] == "MigrationFailed"
    assert "exit code 3" in told.answer["message"]
    assert told.app["last_failure"]["log"] == ["before", "no such column: colour"]
    assert told.run["failure"]["log"] == ["before", "no such column: colour"]
    await quarantined(world, told)


async def test_a_migration_that_says_later_is_tried_again_and_has_not_failed(world: World) -> None:
    box = world.box
    world.pull("busy")
    async with Load(box.port) as load:
        command = migration(world, "echo try >> $W/tries; test -e $W/busy && exit 75; exit 0")
        commit = await world.deploy("2.0", migrate=command)
        _, answer = await box.webhook(commit, wait=True)
        assert answer["failure"]["reason"] == "Later"
        assert answer["failure"]["kind"] == "transient"
        assert (await box.history())[0]["result"] == "later"
        assert condition(await box.app(), "Quarantined")["status"] != "True"
        world.release("busy")
        await box.proven("2.0")
    assert load.failures == []
    assert len(world.lines("tries")) == 2
    assert [run["result"] for run in await box.history()] == ["succeeded", "later", "succeeded"]


async def test_a_version_that_never_gets_healthy_is_stopped_without_having_served(world: World) -> None:
    world.pull("sick-2.0")
    told = await fails(world, health={"deadline": "2s"})
    assert told.answer["reason"] == "ProbeFailed"
    assert "500" in told.answer["message"]
    assert told.app["last_failure"]["log"][-1] == "error: the database is away"
    await quarantined(world, told)


async def test_a_version_that_does_not_answer_at_all_is_stopped(world: World) -> None:
    world.pull("late-2.0")
    told = await fails(world, health={"deadline": "400ms", "timeout": "100ms"})
    assert told.answer["reason"] == "ProbeFailed"


async def test_a_version_that_exits_at_once_is_told_with_code_and_last_lines(world: World) -> None:
    run = {"command": world.shell("echo starting; echo 'no licence' >&2; exit 3")}
    told = await fails(world, run=run)
    assert told.answer["reason"] == "ChildExited"
    assert "exit code 3" in told.answer["message"]
    assert told.app["last_failure"]["log"] == ["starting", "no licence"]
    (serving,) = world.puppets()
    assert told.app["child"]["pid"] == serving[1]
    await quarantined(world, told)


@pytest.mark.parametrize(
    ("command", "reason", "remedy"),
    [
        (["bin/wbe"], "CommandNotFound", "unpacked"),
        (["bin/VERSION"], "CommandNotExecutable", "executable bit"),
        (["nonsense-program"], "CommandNotFound", "unpacked"),
    ],
)
async def test_a_command_that_cannot_be_started_is_named(
    world: World, command: list[str], reason: str, remedy: str
) -> None:
    told = await fails(world, run={"command": command})
    assert told.answer["reason"] == reason
    assert told.answer["where"] == command[0]
    assert remedy in told.answer["remedy"]


async def test_a_file_that_fails_its_check_never_reaches_the_child(world: World) -> None:
    file = {
        "content": "colour = bleu\n",
        "target": "etc/web.conf",
        "check": ["/bin/sh", "-c", 'echo "$0: unknown colour"; exit 1', "{{ target }}"],
    }
    told = await fails(world, files=[file])
    assert told.answer["reason"] == "CheckFailed"
    assert "etc/web.conf" in told.answer["message"]
    assert "unknown colour" in told.app["last_failure"]["log"][0]
    await quarantined(world, told)


async def test_a_template_with_a_mistake_changes_nothing_and_names_its_place(world: World) -> None:
    box = world.box
    async with old_serves(world):
        file = {"template": "web.conf.j2", "target": "etc/web.conf"}
        templates = {"web.conf.j2": "one\n{{ vars.colour }}\n"}
        commit = await world.commit({"web": world.app("2.0", files=[file])}, dict(templates))
        status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["failure"]["reason"]) == (409, "StateInvalid")
    status_now = await box.status()
    valid = next(c for c in status_now["conditions"] if c["type"] == "StateValid")
    assert valid["status"] == "False"
    text = valid["message"] + "\n".join(answer["failure"].get("log", []))
    assert re.search(r"web\.conf\.j2:2", text)
    assert "colour" in text
    await world.deploy("3.0", push=True)
    await box.proven("3.0")


async def test_a_port_taken_by_a_stranger_is_told_with_its_pid_and_tried_again(world: World) -> None:
    box = world.box
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        told = await fails(world, listen=port, result="later")
        assert told.answer["reason"] == "PortTaken"
        assert told.answer["kind"] == "operator"
        assert str(port) in told.answer["message"] + told.answer["where"]
    box.port = port
    await box.proven("2.0")
    await world.only("2.0")


async def test_a_failing_app_holds_up_no_other(world: World) -> None:
    box = world.box
    other = box.port + 1
    world.pull("hold")
    waiting = "while test -e $W/hold; do sleep 0.02; done; exit 1"
    commit = await world.commit(
        {
            "web": world.app("2.0", migrate=migration(world, waiting)),
            "tool": world.app("5.0", listen=other),
        }
    )
    await box.webhook(commit)

    async def tool_runs() -> bool:
        return bool((await box.app("tool")).get("state") == "running")

    await box.until(tool_runs)
    assert (await box.app())["state"] == "updating"
    world.release("hold")
    app = await box.app_is(state="degraded", run=None)
    assert app["last_failure"]["reason"] == "MigrationFailed"
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "failed")
    assert (await box.app("tool"))["state"] == "running"


@pytest.mark.root
async def test_a_full_disk_is_told_changes_nothing_and_is_overcome_when_there_is_room(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(data)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        async with Box(tmp_path) as box:
            world = World(box)
            await world.running()
            filler = data / "filler"
            _fill(filler)
            told = await _full(world)
            assert told["reason"] == "DiskFull"
            assert "free some space" in told["remedy"]
            filler.unlink()
            await box.proven("2.0")
            await world.only("2.0")
            assert (await box.history())[0]["result"] == "succeeded"
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)


async def _full(world: World) -> dict[str, Any]:
    box = world.box
    async with old_serves(world):
        commit = await world.deploy("2.0")
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed")
        failure: dict[str, Any] = answer["failure"]
    app = await box.app()
    assert app["current"]["version"] == "1.0"
    assert condition(app, "Quarantined")["status"] != "True"
    return failure


def _fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
