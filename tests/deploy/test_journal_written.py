"""What was written durably is there, whatever comes."""

import asyncio
import random
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from agent.deploy.journal import Journal
from agent.domain.errors import FailureInfo, OperatorNeeded
from tests.deploy.journals import open_run


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
