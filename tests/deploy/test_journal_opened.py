"""A journal of another age, damaged, lost, or on a disk that fails."""

import os
import sqlite3
from pathlib import Path

import pytest

from agent.deploy import journal_schema
from agent.deploy.journal import Journal
from agent.deploy.journal_schema import Lost
from agent.domain.errors import FailureInfo, OperatorNeeded
from tests.deploy.journals import FAILURE, open_run


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
