"""The verbs that ask an agent, against the real HTTP face and board; only what is behind them is scripted."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.cli.exit_codes import FAILED, NOT_NOW, OK, USAGE
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.events import (
    AppFailed,
    AppStateChanged,
    AppWanted,
    ChildExited,
    ChildRestarting,
    ConditionChanged,
    GateChanged,
    PairCurrent,
    PairGood,
    PauseChanged,
    RunFinished,
    RunStarted,
    StepFinished,
    StepProgress,
    StepStarted,
    SyncStarted,
)
from agent.domain.model import (
    Condition,
    ConditionStatus,
    PlannedStep,
    RunResult,
    StepResult,
    SyncResult,
    TriggerKind,
)
from tests.cli.stage import COMMIT, Stage, deploys, pair, staged

FAILURE = FailureInfo(
    FailureKind.PERMANENT,
    "ProbeFailed",
    "GET /healthz answered 503",
    where="probe",
    remedy="look at the last lines",
    log=("starting", "\x1b[31mno database\x1b[0m\x07"),
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        stage.tell(
            AppWanted("web", pair("1.0.0"), "up to date"),
            PairCurrent("web", pair("1.0.0", since=time.time() - 90)),
            PairGood("web", pair("1.0.0")),
            GateChanged("web", "open"),
            AppStateChanged("web", "running"),
        )
        yield stage


async def test_status_tells_what_runs_since_when_and_from_which_commit(stage: Stage) -> None:
    answer = await stage.command("status")
    assert answer.code == OK
    assert "emptybox 0.1.0 on box-7 (env=test), up 1 h 0 min" in answer.out
    assert "https://git.example/state.git main" in answer.out
    assert "web  running" in answer.out
    assert f"1.0.0 ({COMMIT[:10]}, sha256:{'ab' * 5}…) since" in answer.out
    assert "(1 min 30 s ago)" in answer.out
    assert "wanted" not in answer.out and "failed" not in answer.out
    assert "\x1b" not in answer.out, "no colours in a pipe"


async def test_status_on_a_terminal_has_colours(stage: Stage) -> None:
    answer = await stage.command("status", color=True)
    assert "\x1b[32mrunning" in answer.out


async def test_status_shows_a_run_with_its_progress(stage: Stage) -> None:
    steps = (PlannedStep("fetch", "fetch", "new"), PlannedStep("start", "start", "new", ("fetch",)))
    stage.tell(
        AppWanted("web", pair("2.0.0"), "a newer commit"),
        AppStateChanged("web", "updating"),
        RunStarted("run-1", "sync-1", "web", "2.0.0 replaces 1.0.0", steps),
        StepStarted("run-1", "web", "fetch", "fetch", 2),
        StepProgress("run-1", "web", "fetch", 6 << 20, 24 << 20),
    )
    answer = await stage.command("status", "web")
    assert "wanted    2.0.0" in answer.out
    assert "a newer commit" in answer.out
    assert "[######..................]  25% 6.0 MiB of 24.0 MiB attempt 2" in answer.out
    assert "start        pending" in answer.out


async def test_status_shows_what_is_wrong_with_remedy_and_last_lines_but_no_control_characters(
    stage: Stage,
) -> None:
    stage.tell(
        AppStateChanged("web", "degraded"),
        AppWanted("web", pair("2.0.0"), "quarantined"),
        ConditionChanged("web", Condition("Quarantined", ConditionStatus.TRUE, "ProbeFailed", "set aside")),
        ConditionChanged("web", Condition("Healthy", ConditionStatus.TRUE, "Serving", "all is well")),
        ChildExited("web", "c1", None, 9, False),
        ChildRestarting("web", 0.5, "it ended"),
        AppFailed("web", FAILURE),
        PauseChanged("until monday", "alice"),
    )
    answer = await stage.command("status", color=True)
    plain = (await stage.command("status")).out
    assert "Quarantined True, ProbeFailed: set aside" in plain
    assert "all is well" not in plain, "only what is not fine"
    assert "ProbeFailed: GET /healthz answered 503" in plain
    assert "remedy  look at the last lines" in plain
    assert "| no database" in plain
    assert "1, last ended with signal 9" in plain
    assert "until monday by alice" in plain
    assert "\x07" not in answer.out


async def test_status_as_json_is_the_agents_own_narrowed_to_the_apps_asked_for(stage: Stage) -> None:
    stage.tell(AppStateChanged("worker", "running"))
    status = json.loads((await stage.command("status", "web", "--json")).out)
    assert list(status["apps"]) == ["web"]
    assert status["apps"]["web"]["current"]["commit"] == COMMIT
    assert len(json.loads((await stage.command("status", "--json")).out)["apps"]) == 2


async def test_an_unknown_app_is_a_wrong_command_line_and_the_known_ones_are_named(stage: Stage) -> None:
    for words in (("status", "wbe"), ("logs", "wbe"), ("rollback", "wbe")):
        answer = await stage.command(*words)
        assert answer.code == USAGE, words
        assert "no app is named wbe; there are: web" in answer.err


async def test_history_tells_each_run_and_why_it_failed(stage: Stage) -> None:
    stage.runs = [
        {
            "id": "run-2",
            "sync": "s",
            "app": "web",
            "version": "2.0.0",
            "commit": COMMIT,
            "result": "rolled-back",
            "seconds": 1.25,
            "started": "2026-03-01T10:00:00.000Z",
            "reason": "2.0.0 replaces 1.0.0",
            "steps": [
                {"name": "fetch", "result": "succeeded", "attempts": 1, "seconds": 0.1, "undone": True}
            ],
            "failure": {"reason": "ProbeFailed", "message": "503", "log": ["line"]},
        },
        {"id": "run-1", "app": "worker", "result": "succeeded", "version": "1", "commit": COMMIT},
    ]
    short = await stage.command("history")
    assert "rolled-back" in short.out and "ProbeFailed: 503" in short.out
    assert "fetch" not in short.out and "| line" not in short.out
    long = await stage.command("history", "web", "--steps")
    assert "worker" not in long.out
    assert "fetch          succeeded  undone 100 ms" in long.out and "| line" in long.out
    rows = json.loads((await stage.command("history", "--limit", "1", "--json")).out)
    assert [run["id"] for run in rows["runs"]] == ["run-2"]
    assert "no runs of nobody yet" in (await stage.command("history", "nobody")).out


async def test_plan_shows_each_step_with_its_reason(stage: Stage) -> None:
    step = {"name": "start", "kind": "start", "reason": "a new child", "needs": ["fetch"]}
    web = {
        "action": "update",
        "reason": "2.0.0 replaces 1.0.0",
        "version": "2.0.0",
        "steps": [step],
        "files": {"etc/web.conf": ["--- now", "+++ planned", "-level=info", "+level=debug"]},
    }
    docs = {"action": "none", "reason": "up to date", "version": "1", "steps": []}
    stage.planned = {"commit": COMMIT, "warnings": ["no checksum"], "apps": {"web": web, "docs": docs}}
    answer = await stage.command("plan", "next")
    assert ("plan", "next") in stage.asked
    assert answer.out == (
        "next at c0ffee0000\n"
        "warning: no checksum\n"
        "\nweb  update  2.0.0  2.0.0 replaces 1.0.0\n"
        "  start          a new child  after fetch\n"
        "  etc/web.conf\n"
        "    --- now\n    +++ planned\n    -level=info\n    +level=debug\n"
        "\ndocs  none  1  up to date\n"
    )
    assert json.loads((await stage.command("plan", "--json")).out) == stage.planned


async def test_logs_are_the_last_lines_without_control_characters(stage: Stage) -> None:
    assert (await stage.command("logs", "web", "-n", "2")).out == "second\nthird\n"
    assert json.loads((await stage.command("logs", "web", "--json")).out)["app"] == "web"


async def test_sync_follows_the_run_through_probation_to_its_good_end(stage: Stage) -> None:
    stage.script = deploys("2.0.0")
    answer = await stage.command("sync")
    assert answer.code == OK
    assert [" ".join(line.split()[:3]) for line in answer.out.splitlines()][:5] == [
        "web 2.0.0 replaces",
        "web fetch succeeded",
        "web start succeeded",
        "web live, probation:",
        "web succeeded after",
    ]
    assert answer.out.splitlines()[-1].endswith("succeeded")


async def test_sync_that_ends_in_a_rollback_is_never_a_success(stage: Stage) -> None:
    stage.script = deploys("2.0.0", RunResult.ROLLED_BACK, failure=FAILURE)
    answer = await stage.command("sync")
    assert answer.code == FAILED
    assert "rolled-back" in answer.out
    assert "ProbeFailed: GET /healthz answered 503" in answer.out
    result = json.loads((await stage.command("sync", "--json")).out)
    assert result["result"] == "rolled-back"
    assert result["failure"]["reason"] == "ProbeFailed"


async def test_sync_that_changes_nothing_because_of_a_quarantine_says_so_and_fails(stage: Stage) -> None:
    async def unchanged(stage: Stage, sync: str) -> None:
        stage.tell(SyncStarted(sync, (TriggerKind.OPERATOR,)))
        stage.tell(AppWanted("web", pair("2.0.0"), "quarantined (ProbeFailed)"))
        stage.end(sync, SyncResult.UNCHANGED)

    stage.script = unchanged
    answer = await stage.command("sync")
    assert answer.code == FAILED
    assert "web: not what is wanted: quarantined (ProbeFailed)" in answer.out
    stage.tell(PauseChanged("window", "bob"))
    assert (await stage.command("sync")).code == NOT_NOW


async def test_sync_of_a_sync_that_itself_failed_tells_its_failure(stage: Stage) -> None:
    async def refused(stage: Stage, sync: str) -> None:
        stage.tell(SyncStarted(sync, (TriggerKind.OPERATOR,)))
        await stage.seen()
        stage.end(sync, SyncResult.FAILED, failure=FAILURE)

    stage.script = refused
    answer = await stage.command("sync", "--prune-all")
    assert answer.code == FAILED
    assert "remedy  look at the last lines" in answer.out
    assert stage.asked == [("sync", True)]


async def test_a_sync_that_others_have_overtaken_is_told_by_its_runs(stage: Stage) -> None:
    async def overtaken(stage: Stage, sync: str) -> None:
        stage.tell(SyncStarted(sync, (TriggerKind.OPERATOR,)))
        await stage.seen()
        stage.runs.insert(0, {"id": "r", "sync": sync, "app": "web", "result": "cancelled", "failure": None})
        stage.end(sync, SyncResult.SUPERSEDED)
        stage.end("sync-zzzzzzzzz0000", SyncResult.SUCCEEDED)

    stage.script = overtaken
    answer = await stage.command("sync")
    assert answer.code == FAILED
    assert "cancelled" in answer.out


async def test_a_sync_that_waits_while_a_later_one_ends_is_still_followed(stage: Stage) -> None:
    async def waits(stage: Stage, sync: str) -> None:
        stage.end("sync-zzzzzzzzz0000", SyncResult.SUCCEEDED)  # an operator's rollback does not queue
        for _ in range(3):
            await stage.seen()
        await deploys("2.0.0", RunResult.ROLLED_BACK, failure=FAILURE)(stage, sync)

    stage.script = waits
    assert (await stage.command("sync")).code == FAILED


async def test_a_sync_whose_end_nobody_saw_is_not_called_a_success(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def over_before_one_looks(stage: Stage, sync: str) -> None:
        stage.end(sync, SyncResult.UNCHANGED)
        stage.end("sync-zzzzzzzzz0000", SyncResult.SUCCEEDED)

    monkeypatch.setattr("agent.cli.follow.STILL", 0.1)
    stage.script = over_before_one_looks
    answer = await stage.command("sync")
    assert answer.code == NOT_NOW
    assert "see emptybox history" in answer.out


async def test_without_waiting_a_wish_is_only_handed_over(stage: Stage) -> None:
    answer = await stage.command("sync", "--no-wait")
    assert answer.code == OK
    assert answer.out.startswith("accepted as sync-")
    accepted = json.loads((await stage.command("retry", "web", "--no-wait", "--json")).out)
    assert accepted["merged"] is False
    assert stage.asked == [("sync", False), ("retry", "web")]


async def test_rollback_succeeds_though_something_else_is_wanted(stage: Stage) -> None:
    async def back(stage: Stage, sync: str) -> None:
        await deploys("0.9.0")(stage, sync)

    stage.script = back
    stage.tell(AppWanted("web", pair("2.0.0"), "diverged by an operator"))
    answer = await stage.command("rollback", "web", "--to", "0.9.0")
    assert answer.code == OK
    assert stage.asked == [("rollback", "web", "0.9.0")]


async def test_what_is_not_possible_now_has_its_own_exit_code_and_says_why(stage: Stage) -> None:
    answer = await stage.command("rollback", "web", "--to", "9.9.9")
    assert answer.code == NOT_NOW
    assert answer.err == "Error: no release 9.9.9 is here; there are: 1.0.0\n"


async def test_pause_and_resume(stage: Stage) -> None:
    assert (await stage.command("pause", "until monday")).out == "paused: until monday\n"
    assert json.loads((await stage.command("pause", "--json")).out)["paused"]["message"]
    stage.script = deploys("1.0.0")
    assert (await stage.command("resume")).code == OK
    assert stage.asked[0] == ("pause", "until monday")
    assert stage.board.paused is None


async def test_a_path_longer_than_a_socket_address_is_reached(stage: Stage, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    long = directory / "agent.sock"
    long.symlink_to(stage.socket)
    stage.socket = long
    assert (await stage.command("status")).code == OK


async def test_on_a_terminal_the_running_step_has_a_moving_bar(stage: Stage) -> None:
    async def downloads(stage: Stage, sync: str) -> None:
        steps = (PlannedStep("fetch", "fetch", "new"),)
        stage.tell(
            SyncStarted(sync, (TriggerKind.OPERATOR,)),
            RunStarted("run-1", sync, "web", "[bold]2.0.0 replaces 1.0.0", steps),
            StepStarted("run-1", "web", "fetch", "fetch"),
            StepProgress("run-1", "web", "fetch", 6 << 20, 24 << 20),
        )
        for _ in range(3):  # long enough for the bar to be drawn
            await stage.seen()
        stage.tell(
            StepFinished("run-1", "web", "fetch", "fetch", StepResult.SUCCEEDED, 0.5),
            RunFinished("run-1", sync, "web", RunResult.SUCCEEDED, 0.5),
        )
        stage.end(sync, SyncResult.SUCCEEDED)

    stage.script = downloads
    code, shown = await asyncio.to_thread(on_a_terminal, "sync", "--socket", str(stage.socket))
    assert code == OK
    assert "6.0 MiB of 24.0 MiB" in shown
    assert "[bold]2.0.0 replaces" in shown, "foreign text is no markup"
    assert "\x1b[32msucceeded" in shown


def on_a_terminal(*words: str) -> tuple[int, str]:
    """Run the command line in a process of its own, on a terminal of its own."""
    ours, theirs = os.openpty()
    program = "import sys; from agent.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    with open(ours, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO: the other side is gone
        while data := screen.read(65536):
            shown += data
    return process.wait(30), shown.decode(errors="replace")
