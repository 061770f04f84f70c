"""logs, ps, doctor, history and completion, against the real HTTP face with a scripted agent behind it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from agent.cli.exit_codes import FAILED, OK
from agent.cli.main import VERBS
from agent.domain.events import AppStateChanged, AppWanted
from tests.cli.stage import Answer, Stage, pair, run_here, staged
from tests.kit.terminal import on_terminal


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        stage.tell(AppWanted("web", pair("1.0.0"), "up to date"), AppStateChanged("web", "running"))
        yield stage


def test_the_help_names_every_verb_on_a_whole_line() -> None:
    told = run_here("--help").out
    assert all(f"\n  {verb} " in told for verb in VERBS)
    assert "..." not in told.partition("Commands:")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example(verb: str) -> None:
    answer = run_here(verb, "--help")
    assert answer.code == OK
    assert f"emptybox {verb}" in answer.out.partition("Example:")[2]


async def test_a_shell_completes_the_names_of_apps(stage: Stage) -> None:
    env = {"_EMPTYBOX_COMPLETE": "bash_complete", "EMPTYBOX_SOCKET": str(stage.socket)}
    for verb in ("logs", "status", "rollback", "history"):
        asked = {**env, "COMP_WORDS": f"emptybox {verb} w", "COMP_CWORD": "2"}
        assert (await asyncio.to_thread(run_here, env=asked)).out.strip() == "plain,web"


async def test_logs_are_followed_and_name_their_source(stage: Stage) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", "logs", "-f", "-t", "-n", "1", "--socket", str(stage.socket),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            first, second = [await process.stdout.readline() for _ in range(2)]
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await process.wait()
    assert first == b"2026-11-21T07:38:18.002Z web | third\n"
    assert second == b"2026-11-21T07:38:19.000Z web/check | fourth\n"
    assert process.returncode == OK


async def test_ps_and_doctor_tell_people_and_programs(stage: Stage) -> None:
    row = {"app": "web", "name": "web-1", "version": "1.0", "pid": 7, "state": "serving", "processes": 3}
    stage.children = [{**row, "uptime_seconds": 61.0, "pss": 3 << 20, "rss": None, "cpu_seconds": 0.5}]
    told = await stage.command("ps")
    assert "web  -  1.0      7 (+2)  serving  1 min 1 s  3.0 MiB    -  500 ms" in told.out
    assert json.loads((await stage.command("ps", "--json")).out)["processes"][0]["pid"] == 7

    stage.findings = [{"subject": "disk", "verdict": "warn", "told": "little\x1b[2J left", "remedy": "free"}]
    told = await stage.command("doctor")
    assert told.code == OK, "a warning is no failure"
    assert "warn    disk   little left" in told.out
    assert "-> free" in told.out
    assert "nothing is being waited for" in told.out
    stage.findings[0]["verdict"] = "bad"
    assert (await stage.command("doctor", "--json")).code == FAILED


async def test_the_store_is_shown_to_people_and_programs(stage: Stage) -> None:
    async def store(*words: str) -> Answer:
        return await asyncio.to_thread(run_here, "store", *words, "--socket", str(stage.socket))

    told = await store("ls")
    assert "r1           3  4.0 KiB  8.0 KiB" in told.out
    assert told.out.rstrip().endswith("web 1.0 (current, good)")
    assert "8.0 KiB in /data/store, 1.0 GiB free" in (await store("du")).out
    assert json.loads((await store("du", "--json")).out)["disk"] == 8192

    told = await store("verify")
    assert told.code == OK
    assert told.out == "ok       r1  3 files, 4.0 KiB\n  not of it: red\n"
    told = await store("verify", "r1", "r2")
    assert told.code == FAILED
    assert "changed  r2" in told.out
    assert "changed: bin/web\n  and 2 more" in told.out
    told = await store("verify", "--repair", "r2")
    assert (told.code, told.out.split()[0]) == (OK, "repaired")

    assert "would go: r0 (2.0 KiB)" in (await store("gc", "--dry-run")).out
    assert "removed: r0 (2.0 KiB)\n1.0 MiB free" in (await store("gc")).out


async def test_a_wait_is_told_on_a_terminal_and_nowhere_else(stage: Stage) -> None:
    stage.planned, stage.planning = {"commit": "c0ffee", "apps": {}}, 1.5
    async with on_terminal(["plan", "--socket", str(stage.socket)], {}) as terminal:
        assert await terminal.ended() == OK
        await terminal.until(lambda shown: "followed ref at c0ffee" in shown)
        assert "the agent asks the Git server" in terminal.shown
    told = await stage.command("plan")
    assert told.out.strip() == "followed ref at c0ffee"
    assert told.err == ""


async def test_history_shows_failed_looks_once_however_often_they_came(stage: Stage) -> None:
    failure = {"reason": "GitUnavailable", "message": "no route to host", "remedy": "is the forge up?"}
    stage.syncs = [
        {"id": f"sync-{n}", "commit": "", "result": "failed", "started": f"2026-11-21T07:0{n}:00.000Z",
         "seconds": 1.0, "failure": failure}
        for n in (3, 2, 1)
    ]  # fmt: skip
    told = (await stage.command("history")).out
    assert told.count("GitUnavailable") == 1
    assert "3 times, last" in told
