import sqlite3
from pathlib import Path

import pytest

from agent.deploy import quarantine
from agent.deploy.journal import COMPACT_EVERY, Journal
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import RunResult, StepResult, SyncResult
from tests.deploy.journals import COMMIT, FAILURE, open_run


async def test_history_tells_a_run_with_its_steps_marks_and_failure(journal: Journal) -> None:
    journal.open_sync("sync-1", kinds=["push", "poll"], detail="github 4711")
    journal.resolve_sync("sync-1", COMMIT)
    open_run(journal)
    journal.step_started("run-1", "fetch", "fetch")
    journal.step_started("run-1", "fetch", "fetch", 2)
    journal.step_finished("run-1", "fetch", StepResult.SUCCEEDED, 0.25)
    journal.step_started("run-1", "start", "start")
    await journal.mark("run-1", "switching", "side 1", durable=True)
    journal.step_finished("run-1", "start", StepResult.FAILED, 1.5, FAILURE)
    journal.step_finished("run-1", "start", StepResult.UNDONE, 0.0)
    journal.step_finished("run-1", "probe", StepResult.SKIPPED, 0.0)
    await journal.close_run("run-1", RunResult.FAILED, FAILURE, durable=True)
    (run,) = await journal.history(app="web")
    assert {k: run[k] for k in ("id", "sync", "app", "commit", "version", "result", "reason")} == {
        "id": "run-1",
        "sync": "sync-1",
        "app": "web",
        "commit": COMMIT,
        "version": "1.4.0",
        "result": "failed",
        "reason": "1.4.0 replaces 1.3.0",
    }
    assert run["triggers"] == ["push", "poll"]
    assert run["failure"]["reason"] == "ProbeFailed"
    assert run["failure"]["log"] == ["line 1", "line 2"]
    assert [mark["name"] for mark in run["marks"]] == ["switching"]
    fetch, start, probe = run["steps"]
    assert (fetch["result"], fetch["attempts"], fetch["seconds"], fetch["undone"]) == (
        "succeeded",
        2,
        0.25,
        False,
    )
    assert (start["result"], start["undone"], start["failure"]["message"]) == (
        "failed",
        True,
        "503 from /healthz",
    )
    assert (probe["result"], probe["kind"], probe["started"]) == ("skipped", "probe", "")


async def test_history_pages_backwards_and_by_app(journal: Journal) -> None:
    for number in range(6):
        open_run(journal, f"run-{number}", "web" if number % 2 else "worker")
    first = await journal.history(limit=2)
    assert [run["id"] for run in first] == ["run-5", "run-4"]
    more = await journal.history(limit=2, before="run-4")
    assert [run["id"] for run in more] == ["run-3", "run-2"]
    assert [run["id"] for run in await journal.history(app="web")] == ["run-5", "run-3", "run-1"]
    assert first[0]["ended"] == "" and first[0]["seconds"] is None


async def test_nothing_of_a_specification_is_stored(journal: Journal, path: Path) -> None:
    open_run(journal)
    await journal.mark("run-1", "end", durable=True)
    for file in path.parent.iterdir():
        assert b"a secret of the spec" not in file.read_bytes()


async def test_a_probation_is_corrected_later_and_keeps_its_end(journal: Journal) -> None:
    open_run(journal)
    journal.close_run("run-1", RunResult.PROBATION)
    (before,) = await journal.history()
    (unfinished,) = await journal.unfinished_runs()
    assert unfinished.result is RunResult.PROBATION
    journal.close_run("run-1", RunResult.ROLLED_BACK, FAILURE)
    (after,) = await journal.history()
    assert after["result"] == "rolled-back"
    assert after["ended"] == before["ended"] != ""
    assert await journal.unfinished_runs() == []


async def test_the_next_life_finds_the_unfinished_run_and_closes_it(path: Path) -> None:
    async with await Journal.open(path) as journal:
        journal.open_sync("sync-1", kinds=["push"])
        open_run(journal)
        journal.step_started("run-1", "fetch", "fetch")
        journal.step_finished("run-1", "fetch", StepResult.SUCCEEDED, 0.1)
        journal.step_started("run-1", "start", "start")
        journal.mark("run-1", "migrating")
        journal.mark("run-1", "switching")
        open_run(journal, "run-2")
        journal.close_run("run-2", RunResult.SUCCEEDED)
    async with await Journal.open(path) as journal:
        (run,) = await journal.unfinished_runs()
        assert (run.id, run.app, run.spec, run.commit) == ("run-1", "web", "s" * 64, COMMIT)
        assert run.marks == ("migrating", "switching")
        assert run.steps == {"fetch": StepResult.SUCCEEDED, "start": StepResult.RUNNING}
        await journal.mark_interrupted(durable=True)
        assert await journal.unfinished_runs() == []
        told = {row["id"]: row for row in await journal.history()}
        assert told["run-1"]["result"] == "interrupted"
        assert told["run-1"]["failure"]["reason"] == "Interrupted"
        assert [step["result"] for step in told["run-1"]["steps"]] == ["succeeded", "cancelled", "pending"]
        assert told["run-2"]["result"] == "succeeded"


async def test_one_run_can_be_closed_as_interrupted_by_name(journal: Journal) -> None:
    open_run(journal, "run-1")
    open_run(journal, "run-2")
    journal.close_run("run-2", RunResult.PROBATION)
    journal.mark_interrupted("run-2")
    assert {row["id"]: row["result"] for row in await journal.history()} == {
        "run-1": "running",
        "run-2": "interrupted",
    }


async def test_whether_an_apps_newest_run_was_interrupted_is_asked_again_after_another_crash(
    journal: Journal,
) -> None:
    for run in ("run-1", "run-2"):
        open_run(journal, run)
    open_run(journal, "run-3", app="worker")
    await journal.mark_interrupted()  # by an agent that died before it looked
    runs = await journal.unfinished_runs()
    assert [(run.id, run.result) for run in runs] == [
        ("run-2", RunResult.INTERRUPTED),
        ("run-3", RunResult.INTERRUPTED),
    ]
    journal.close_run("run-2", RunResult.SUCCEEDED)
    assert [run.id for run in await journal.unfinished_runs()] == ["run-3"]


async def test_a_sync_that_waits_for_another_ones_probation_has_an_end_after_a_crash(
    path: Path, journal: Journal
) -> None:
    for sync in ("sync-1", "sync-2"):  # the second one wants what the first one's run has on probation
        journal.open_sync(sync, kinds=["push"])
        journal.close_sync(sync, SyncResult.PROBATION)
    open_run(journal)
    journal.close_run("run-1", RunResult.PROBATION)
    await journal.mark_interrupted(durable=True)
    connection = sqlite3.connect(path)
    told = connection.execute("SELECT id, result FROM syncs ORDER BY id").fetchall()
    connection.close()
    assert told == [("sync-1", "probation"), ("sync-2", "interrupted")]
    assert [run.id for run in await journal.unfinished_runs()] == ["run-1"]


async def test_the_estimate_is_the_median_of_what_succeeded(journal: Journal) -> None:
    for number, seconds in enumerate((1.0, 9.0, 2.0, 100.0)):
        run = f"run-{number}"
        open_run(journal, run)
        journal.step_started(run, "fetch", "get")
        result = StepResult.FAILED if seconds == 100 else StepResult.SUCCEEDED
        journal.step_finished(run, "fetch", result, seconds)
    assert await journal.last_durations("web") == {"fetch": 2.0}
    assert await journal.last_durations("other") == {}


async def test_only_the_newest_failures_of_an_app_are_kept_in_quarantine(path: Path) -> None:
    async with await Journal.open(path) as journal:
        await journal.quarantine.add("worker", "spec", FAILURE)
        for number in range(quarantine.MOST + 10):
            journal.quarantine.add("web", f"spec-{number}", FAILURE)
        await journal.quarantine.add("web", "spec-10", FAILURE)  # it fails again, and is the newest now
    async with await Journal.open(path) as journal:
        kept = {entry.spec for entry in journal.quarantine.list("web")}
        assert len(kept) == quarantine.MOST
        assert "spec-10" in kept
        assert not {"spec-0", "spec-9"} & kept
        assert [entry.spec for entry in journal.quarantine.list("worker")] == ["spec"]


async def test_the_quarantine_outlives_the_agent(path: Path) -> None:
    async with await Journal.open(path) as journal:
        journal.quarantine.add("web", "abc", FAILURE)
        journal.quarantine.add("web", "def", FAILURE)
        await journal.quarantine.add("worker", "abc", FAILURE, durable=True)
        journal.quarantine.remove("web", "def")
    async with await Journal.open(path) as journal:
        found = journal.quarantine.find("web", "abc")
        assert found is not None
        assert found.failure == FAILURE
        assert journal.quarantine.find("web", "def") is None
        assert [entry.app for entry in journal.quarantine.list()] == ["web", "worker"]
        journal.quarantine.remove("web")
        assert journal.quarantine.list("web") == []
        assert len(journal.quarantine.list()) == 1
        journal.quarantine.remove()
    async with await Journal.open(path) as journal:
        assert journal.quarantine.list() == []


async def test_facts_outlive_the_agent_until_forgotten(path: Path) -> None:
    async with await Journal.open(path) as journal:
        journal.put_fact("pause", "migration window")
        journal.put_fact("commit", COMMIT)
        journal.put_fact("pause", None)
    async with await Journal.open(path) as journal:
        assert journal.fact("pause") is None
        assert journal.fact("commit") == COMMIT


async def test_only_the_last_thousand_runs_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await Journal.open(path) as journal:
        for number in range(1000 + COMPACT_EVERY):
            open_run(journal, f"run-{number:04}")
            journal.step_started(f"run-{number:04}", "fetch", "fetch")
            journal.mark(f"run-{number:04}", "switching")
        assert len(await journal.history(limit=1000)) == 1000
        (oldest,) = await journal.history(limit=1, before="run-0101")
        assert oldest["id"] == "run-0100"
        assert await journal.history(limit=1, before="run-0100") == []
    async with await Journal.open(path):
        with sqlite3.connect(path) as connection:
            for table in ("steps", "marks"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1000,)
        connection.close()


async def test_a_long_failure_is_cut(journal: Journal) -> None:
    open_run(journal)
    long = FailureInfo(FailureKind.PERMANENT, "X", "m" * 10**6, log=("l" * 10**6,) * 1000)
    await journal.close_run("run-1", RunResult.FAILED, long, durable=True)
    (run,) = await journal.history()
    assert len(run["failure"]["message"]) == 4000
    assert [len(line) for line in run["failure"]["log"]] == [1000] * 200


async def test_the_end_of_a_sync_can_be_corrected(journal: Journal) -> None:
    journal.open_sync("sync-1", kinds=["poll"])
    journal.close_sync("sync-1", SyncResult.PROBATION)
    journal.close_sync("sync-1", SyncResult.ROLLED_BACK, failure=FAILURE)
    rows = await journal._read(lambda c: c.execute("SELECT result, commit_id FROM syncs").fetchall())
    assert rows == [("rolled-back", "")]
