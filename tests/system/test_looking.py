"""What an operator sees of a real agent: output kept and followed, processes, the doctor, failed looks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.operator import Operator, run
from tests.kit.terminal import on_terminal

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}


@pytest.fixture
def operator(box: Box) -> Operator:
    return Operator(box)


async def test_output_is_followed_over_a_swap_and_the_death_of_the_agent(
    box: Box, operator: Operator
) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    async with on_terminal(["logs", "-f", "-t"], {"EMPTYBOX_DATA": str(box.data)}) as terminal:
        await terminal.until(lambda shown: "web | version 1.0 starts" in shown.replace("\x1b[0m", ""))
        os.kill(await box.agent_pid(), signal.SIGKILL)
        await box.until(box.answers)
        await box.deploy("2.0", health=QUICK, push=True)
        await box.proven("2.0")
        await terminal.until(lambda shown: "version 2.0 starts" in shown and "version 1.0 ends" in shown)
        assert terminal.shown.count("version 1.0 starts") == 1, "nothing is told twice"
        terminal.interrupt()
        assert await terminal.ended() == 0

    async def kept() -> bool:
        lines = (await operator("logs", "web", "-n", "2")).out.splitlines()
        return sorted(lines) == ["version 1.0 ends", "version 2.0 starts"]

    await box.until(kept)
    file = box.data / "apps/web/output.log"
    assert file.stat().st_mode & 0o777 == 0o600


async def test_without_files_the_last_lines_are_still_told(box: Box, operator: Operator) -> None:
    box.settings["--app-log-size"] = "0"
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    assert (await operator("logs", "web")).out == "version 1.0 starts\n"
    assert not (box.data / "apps/web/output.log").exists()
    told = await operator("logs", "-f")
    assert told.code == 4
    assert "--app-log-size" in told.err


async def test_ps_tells_every_process_and_what_it_uses(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health={**QUICK, "probation": "20s"})
    await box.start()
    await box.app_is(state="probation")
    await box.app_is(state="running", current__version="1.0")
    await box.deploy("2.0", health={**QUICK, "probation": "20s"}, push=True)
    app = await box.app_is(state="probation", current__version="2.0")
    rows = (await operator("ps", "--json")).json["processes"]
    by_state = {(row["app"], row["version"], row["state"]): row for row in rows}
    serving, standby = by_state["web", "2.0", "serving"], by_state["web", "1.0", "standby"]
    assert serving["pid"] == app["child"]["pid"] != standby["pid"]
    assert box.process is not None
    own = {row["name"]: row["pid"] for row in rows if row["app"] is None}
    assert own == {"keeper": box.process.pid, "agent": await box.agent_pid()}
    for row in rows:
        assert row["rss"] >= row["pss"] > 0
        assert row["cpu_seconds"] >= 0
    told = (await operator("ps")).out.splitlines()
    assert told[0].split()[:4] == ["APP", "#", "VERSION", "PID"]
    assert any(line.startswith("web") and "standby" in line for line in told)


async def test_looks_that_fail_before_any_run_are_in_the_history(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    commit = await box.commit("schema: 1\napps: {web: {verzion: 1}}\n")
    assert (await box.webhook(commit, wait=True))[0] == 409
    (sync,) = (await operator("history", "--json")).json["syncs"]
    assert (sync["commit"], sync["result"], sync["triggers"]) == (commit, "failed", ["push"])
    assert sync["failure"]["reason"] == "StateInvalid"
    told = (await operator("history")).out
    assert "(no run)" in told
    assert "verzion" in told
    assert told.index("(no run)") < told.index("web"), "newest first"
    assert (await operator("history", "web", "--json")).json["syncs"] == []
    box.repository.path.rename(box.directory / "elsewhere.git")
    assert (await operator("sync")).code == 1
    newest = (await operator("history", "--json")).json["syncs"][0]
    assert newest["failure"]["reason"] == "RepositoryNotFound"
    assert newest["triggers"] == ["operator"]


async def test_the_doctor_says_what_is_waited_for_and_what_cannot_be_reached(
    box: Box, operator: Operator
) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    report = (await operator("doctor", "--json")).json
    by_subject = {finding["subject"]: finding for finding in report["findings"]}
    for subject in ("agent", "kernel", "memfd", "pidfd", "data directory", "git", "artifact web"):
        assert by_subject[subject]["verdict"] == "ok", by_subject[subject]
    assert {"seccomp", "landlock", "cgroups", "disk", "clock", "webhook secret"} <= by_subject.keys()
    assert report["waiting"] == []

    assert (await operator("pause", "release freeze")).code == 0
    (box.artifacts / "web-1.0-good.tar.gz").unlink()
    box.repository.path.rename(box.directory / "elsewhere.git")
    told = await operator("doctor")
    assert told.code == 1
    assert "bad     git" in told.out
    assert "bad     artifact web" in told.out
    assert "pause, since" in told.out
    assert "release freeze" in told.out
    assert "until emptybox resume" in told.out


async def test_the_doctor_needs_no_agent_and_its_bundle_no_secret(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health=QUICK, env={"LEAK": "an unguessable test secret"})
    settings = {
        "EMPTYBOX_REPO": box.repository.url,
        "EMPTYBOX_DATA": str(box.data),
        "EMPTYBOX_WEBHOOK_SECRET_FILE": str(box.secret_file),
    }
    bundle = box.directory / "support.tar.gz"
    told = await run("doctor", "--bundle", str(bundle), environment=settings)
    assert told.code == 1
    assert "no agent answers at" in told.out
    assert "emptybox run --repo" in told.out
    assert "ok      git" in told.out
    assert "doctor.json" in members(bundle)

    await box.start()
    await box.proven("1.0")
    told = await run("doctor", "--bundle", str(bundle), environment=settings)
    assert told.code == 0, told.out
    held = members(bundle)
    assert {
        "doctor.json",
        "status.json",
        "history.json",
        "ps.json",
        "metrics.txt",
        "settings.txt",
    } <= held.keys()
    assert "version 1.0 starts" in held["output.txt"]
    assert json.loads(held["status.json"])["apps"]["web"]["state"] == "running"
    assert "an unguessable test secret" not in "".join(held.values())
    assert bundle.stat().st_mode & 0o777 == 0o600


def members(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            found[info.name.partition("/")[2]] = file.read().decode()
        return found


async def test_progress_moves_on_a_terminal_and_is_lines_in_a_pipe(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", health={**QUICK, "probation": "1s"}, migrate=[
        {"name": "wait", "command": ["/bin/sleep", "1"]}])  # fmt: skip
    async with on_terminal(["sync"], {"EMPTYBOX_DATA": str(box.data)}) as terminal:
        assert await terminal.ended() == 0
        await terminal.until(lambda shown: "succeeded" in shown)
    assert "\x1b[?25l" in terminal.shown, "the cursor is hidden while bars move"
    assert "\x1b[?25h" in terminal.shown, "and shown again"
    assert "web  migrate" in terminal.shown

    await box.deploy("3.0", health={**QUICK, "probation": "1s"})
    told = await operator("sync")
    assert told.code == 0
    assert "\x1b" not in told.out
    assert "web  switch" in told.out


async def test_each_line_of_a_deploy_names_its_sync_and_its_run_and_later_ones_do_not(box: Box) -> None:
    box.settings["--log-format"] = "json"
    box.settings["--poll"] = "1h"  # a poll's lines are of no run
    await box.deploy("1.0", health=QUICK)
    await box.start()
    app = await box.proven("1.0")
    os.kill(app["child"]["pid"], signal.SIGKILL)
    await box.app_is(state="running", child__restarts=1)
    said = [json.loads(line) for line in box.output if line.startswith("{")]
    assert all(
        {"at", "level", "logger", "message"} <= line.keys() and line["at"].endswith("Z") for line in said
    )
    messages = [line["message"] for line in said]
    begin = next(n for n, text in enumerate(messages) if "run begins" in text)
    end = next(n for n, text in enumerate(messages) if "run switched" in text)
    of_run = {(line.get("sync"), line.get("run")) for line in said[begin : end + 1]}
    assert len(of_run) == 1, [line for line in said[begin : end + 1] if "run" not in line]
    assert None not in of_run.pop()
    crash = next(line for line in said if "which nobody asked for" in line["message"])
    assert "run" not in crash
    assert "sync" not in crash


async def test_a_flood_of_output_slows_nobody_and_fills_no_disk(box: Box) -> None:
    box.settings |= {"--app-log-size": "1M", "--app-log-files": "2"}
    flood = f"yes {'y' * 127} & exec {sys.executable} -S bin/web"
    health = {**QUICK, "timeout": "5s", "deadline": "20s"}
    await box.deploy("1.0", health=health, run={"command": ["/bin/sh", "-c", flood]})
    await box.start()
    await box.serving("1.0")
    await box.proven("1.0")
    for _ in range(20):
        assert await box.answers()
        assert await box.get() == (200, "1.0\n")
    dropped = b"lines dropped: more than 4 MiB a second"
    output = box.directory / "output.log"

    async def told() -> bool:
        await asyncio.to_thread(kept)
        return dropped in await asyncio.to_thread(output.read_bytes)

    def kept() -> None:
        files = list((box.data / "apps/web").glob("output.log*"))
        assert len(files) <= 2
        assert sum(file.stat().st_size for file in files) < 3 << 20

    await box.until(told)
    await box.deploy("2.0", health=health, push=True)
    await box.proven("2.0")
    kept()
    assert output.stat().st_size < 200 << 20, "nor does what is passed on"
