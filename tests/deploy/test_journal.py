import asyncio
import os
import random
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.deploy import journal_schema, quarantine
from agent.deploy.journal import COMPACT_EVERY, Journal
from agent.deploy.journal_schema import Lost
from agent.domain.errors import FailureInfo, FailureKind, OperatorNeeded
from agent.domain.model import Plan, PlannedStep, RunResult, StepResult, SyncResult

COMMIT = "c" * 40
FAILURE = FailureInfo(
    FailureKind.PERMANENT,
    "ProbeFailed",
    "503 from /healthz",
    "probe",
    "look at the log",
    ("line 1", "line 2"),
)
PLAN = Plan(
    "web",
    "1.4.0 replaces 1.3.0",
    (
        PlannedStep("fetch", "fetch", "not in the store", (), {"token": "a secret of the spec"}),
        PlannedStep("start", "start", "a new child", ("fetch",)),
        PlannedStep("probe", "probe", "health decides", ("start",)),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    async with await Journal.open(path) as journal:
        yield journal


def open_run(journal: Journal, run: str = "run-1", app: str = "web") -> None:
    journal.open_run(run, "sync-1", app, PLAN, spec="s" * 64, version="1.4.0", commit=COMMIT)


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


async def test_a_journal_of_the_first_format_is_brought_up_to_date_with_what_it_holds(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(journal_schema._TABLES)
    connection.execute("INSERT INTO facts VALUES ('pause', 'since before')")
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    for _ in range(2):
        async with await Journal.open(path) as journal:
            assert journal.fact("pause") == "since before"
            journal.outbox.put("ops", "app web", "failed", b"{}")
            assert len(journal.outbox.waiting()) == 1
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (journal_schema.VERSION,)
    connection.close()


async def test_a_journal_from_the_future_is_put_aside_untouched(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={journal_schema.VERSION + 1}")
    connection.execute("CREATE TABLE wonders (x)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    async with await Journal.open(path) as journal:
        assert journal.lost is not None
        assert journal.lost.reason == "Newer"
        assert journal.lost.aside is not None
        assert journal.lost.aside.name.startswith("journal.db.newer-")
        assert sqlite3.connect(journal.lost.aside).execute("SELECT * FROM wonders").fetchall() == []
        open_run(journal)
        assert len(await journal.history()) == 1
    assert content


@pytest.mark.parametrize("damage", ["garbage", "middle"])
async def test_a_damaged_journal_is_moved_aside_and_begun_anew(path: Path, damage: str) -> None:
    async with await Journal.open(path) as journal:
        for number in range(200):
            open_run(journal, f"run-{number}")
            journal.put_fact(f"key {number}", "v" * 500)
    content = bytearray(path.read_bytes())
    content = bytearray(b"not a database at all") * 500 if damage == "garbage" else content
    content[4096:20000] = os.urandom(20000 - 4096)
    path.write_bytes(content)
    async with await Journal.open(path) as journal:
        assert journal.lost is not None
        assert journal.lost.aside is not None
        assert journal.lost.aside.name.startswith("journal.db.corrupt-")
        assert journal.lost.aside.read_bytes() == bytes(content)
        assert await journal.history() == []
        open_run(journal)
        assert len(await journal.history()) == 1
    async with await Journal.open(path) as journal:
        assert journal.lost is None
        assert len(await journal.history()) == 1


@pytest.mark.parametrize("damage", ["middle", "truncated", "zeroed", "unlinked", "replaced"])
async def test_a_journal_damaged_in_use_is_begun_anew_with_what_is_still_acted_on(
    path: Path, damage: str
) -> None:
    lost: list[Lost] = []
    async with await Journal.open(path, on_lost=lost.append) as journal:
        journal.put_fact("pause", "by Ada")
        await journal.quarantine.add("web", "spec", FAILURE, durable=True)
        await journal.ledger.reach("web", "release")
        journal.outbox.put("forge", "subject", "mark", b"letter")
        for number in range(200):
            open_run(journal, f"run-{number}")
        await journal._read(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        await journal._read(lambda c: c.execute("PRAGMA shrink_memory").fetchall())
        _damage(path, damage)
        await journal.mark("run-1", "switching", durable=True)
        open_run(journal, "run-new")
        await journal.mark("run-new", "switching", durable=True)
        assert [run["id"] for run in await journal.history(limit=1)] == ["run-new"]
    assert [each.reason for each in lost] == ["Missing" if damage in ("unlinked", "replaced") else "Damaged"]
    async with await Journal.open(path, on_lost=lost.append) as journal:
        assert len(lost) == 1
        assert journal.fact("pause") == "by Ada"
        assert journal.quarantine.find("web", "spec") is not None
        assert journal.ledger.knows("web", "release")
        assert [letter.body for letter in journal.outbox.waiting()] == [b"letter"]


def _damage(path: Path, how: str) -> None:
    size = path.stat().st_size
    if how == "middle":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(size - 4096))
    elif how == "truncated":
        os.truncate(path, size // 2 // 4096 * 4096)
    elif how == "zeroed":
        os.truncate(path, 0)
    else:
        path.unlink()
        if how == "replaced":
            path.touch()


async def test_a_journal_that_should_be_there_and_is_not_is_told(path: Path) -> None:
    lost: list[Lost] = []
    async with await Journal.open(path, on_lost=lost.append):
        assert lost == []
    path.unlink()
    async with await Journal.open(path, on_lost=lost.append, expected=True):
        assert lost == [Lost("Missing")]


async def test_where_apps_run_a_journal_in_memory_takes_the_place_of_one_that_cannot_be_opened(
    path: Path,
) -> None:
    path.mkdir()  # as good as a disk that fails at this place
    heard: list[FailureInfo | None] = []
    async with await Journal.open(path, on_error=heard.append, expected=True) as journal:
        assert journal.makeshift is not None
        assert heard == [journal.makeshift.info]
        open_run(journal)
        assert len(await journal.history()) == 1
        with pytest.raises(OperatorNeeded) as caught:
            await journal.mark("run-1", "switching", durable=True)
        assert caught.value.info == journal.makeshift.info
        assert not await journal.usable()
        path.rmdir()
        assert await journal.usable()
    async with await Journal.open(path, expected=True) as journal:
        assert journal.makeshift is None
        assert await journal.history() == []


async def test_a_journal_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OperatorNeeded, match="let the agent's user write") as caught:
        await Journal.open(tmp_path / "missing" / "journal.db")
    assert caught.value.reason == "PermissionDenied"


async def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room(path: Path) -> None:
    heard: list[FailureInfo | None] = []
    async with await Journal.open(path, on_error=heard.append) as journal:
        # SQLite's own bound on a file's size gives the error of a full disk.
        await journal._read(lambda c: c.execute("PRAGMA max_page_count=20").fetchone())
        journal.put_fact("big", "x" * 200_000)
        open_run(journal)
        with pytest.raises(OperatorNeeded, match="free space") as caught:
            await journal.mark("run-1", "switching", durable=True)
        assert caught.value.reason == "DiskFull"
        assert [info.reason for info in heard if info] == ["DiskFull"]
        await journal._read(lambda c: c.execute("PRAGMA max_page_count=100000").fetchone())
        await journal.mark("run-1", "later", durable=True)
        (run,) = await journal.history()
        assert [mark["name"] for mark in run["marks"]] == ["later"], "the failed durable write is not done"
        assert heard[-1] is None
    async with await Journal.open(path) as journal:
        assert journal.fact("big") == "x" * 200_000


async def test_only_durable_writes_ask_for_a_full_synchronous_commit(journal: Journal) -> None:
    statements: list[str] = []
    await journal._read(lambda c: c.set_trace_callback(statements.append))
    journal.put_fact("a", "1")
    journal.put_fact("b", "2")
    await journal._read(lambda _c: None)
    assert statements.count("BEGIN IMMEDIATE") == 1, "plain writes share a transaction"
    assert "PRAGMA synchronous=NORMAL" in statements
    journal.put_fact("c", "3")
    await journal.put_fact("d", "4", durable=True)
    full = statements.index("PRAGMA synchronous=FULL")
    assert [s.split()[0] for s in statements[full + 1 :]] == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    await journal._read(lambda c: c.set_trace_callback(None))


async def test_plain_writes_reach_the_file_without_being_awaited(journal: Journal, path: Path) -> None:
    journal.put_fact("a", "1")
    reader = sqlite3.connect(path)
    async with asyncio.timeout(5):
        while reader.execute("SELECT count(*) FROM facts").fetchone() == (0,):
            await asyncio.sleep(0.005)
    reader.close()


async def test_a_cancelled_wait_for_a_durable_write_does_not_undo_it(journal: Journal) -> None:
    async def write() -> None:
        await journal.put_fact("a", "1", durable=True)

    task = asyncio.create_task(write())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal._read(lambda c: c.execute("SELECT value FROM facts").fetchall()) == [("1",)]


async def test_a_closed_journal_refuses_writes_and_keeps_what_it_had(path: Path) -> None:
    journal = await Journal.open(path)
    journal.put_fact("a", "1")
    await journal.aclose()
    await journal.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        journal.put_fact("b", "2")
    assert not list(path.parent.glob("*-wal"))
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    async with await Journal.open(path) as again:
        assert again.fact("a") == "1"


WRITER = """
import asyncio, sys
from pathlib import Path
from agent.deploy.journal import Journal
from agent.deploy.journal_schema import Lost
from agent.domain.model import Plan

async def main():
    journal = await Journal.open(Path(sys.argv[1]))
    plan = Plan("web", "test", ())
    journal.open_run("run", "sync", "web", plan, spec="", version="", commit="")
    number = 0
    while True:
        number += 1
        journal.put_fact(f"plain {number}", "x")
        await journal.mark("run", str(number), durable=True)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.mark.parametrize("round_", range(4))
async def test_after_kill_9_every_acknowledged_durable_write_is_there(path: Path, round_: int) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    acknowledged = 0
    async with asyncio.timeout(30):
        for _ in range(random.randint(1, 300)):
            acknowledged = int(await writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(n) for n in (await writer.stdout.read()).split(b"\n")[:-1])])
        await writer.wait()
    async with await Journal.open(path) as journal:
        assert journal.lost is None
        rows = await journal._read(lambda c: c.execute("SELECT name FROM marks ORDER BY seq").fetchall())
        assert [int(name) for (name,) in rows] == list(range(1, len(rows) + 1)), "in order, without a hole"
        assert len(rows) >= acknowledged
        assert all(journal.fact(f"plain {n}") == "x" for n in range(1, acknowledged + 1))


async def test_the_end_of_a_sync_can_be_corrected(journal: Journal) -> None:
    journal.open_sync("sync-1", kinds=["poll"])
    journal.close_sync("sync-1", SyncResult.PROBATION)
    journal.close_sync("sync-1", SyncResult.ROLLED_BACK, failure=FAILURE)
    rows = await journal._read(lambda c: c.execute("SELECT result, commit_id FROM syncs").fetchall())
    assert rows == [("rolled-back", "")]
