"""Migrations whose end nobody saw: none is told as running, none that may have happened is passed over."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.deploy.deployments import Deployment, pair_of
from agent.deploy.journal import Journal
from agent.deploy.ledger import Ledger, Word
from agent.deploy.migrating import Work, down, up
from agent.deploy.steps.migrate import Migrate
from agent.deploy.unclear import settle_migrations
from agent.domain.errors import OperatorNeeded
from agent.domain.model import PlannedStep
from agent.domain.spec import AppSpec, MigrationKind, MigrationSpec
from agent.migrator.order import Answer
from agent.process.command import CommandResult

COMMAND = MigrationSpec(name="schema", command=("up",), kind=MigrationKind.IRREVERSIBLE)
SQL = MigrationSpec(name="schema", sql="sql", database="sqlite:x", kind=MigrationKind.IRREVERSIBLE)
BOTH = MigrationSpec(name="schema", command=("up",), database="sqlite:x", kind=MigrationKind.IRREVERSIBLE)
KILLED = CommandResult(None, 9, ())
SPEECHLESS = (KILLED,)


def says(**answer: Any) -> CommandResult:
    """A look that ends with this answer."""
    found = Answer(**answer)
    return CommandResult(0 if found.outcome == "done" else 1, None, (found.line(),))


def deployment(migration: MigrationSpec, path: Path) -> Deployment:
    """Version 2.0, which brings a migration."""
    spec = AppSpec(name="web", version="2.0", migrate=(migration,))
    return Deployment(pair_of(spec, "r2", "c"), spec, path, None, None)


class World:
    """Stands for the app: what is on disk, and how each look at the database ends."""

    def __init__(
        self,
        journal: Journal,
        there: Sequence[Deployment],
        ends: Sequence[CommandResult],
        left: Sequence[tuple[int, CommandResult]] = (),
    ) -> None:
        self.name, self._there, self._ends, self._left = "web", there, iter(ends), left
        self.services = SimpleNamespace(journal=journal, processes=self)
        self.leftovers = self.surroundings = self.deployments = self

    async def end_commands(self, _app: str) -> list[tuple[int, CommandResult]]:
        return list(self._left)

    def all(self) -> Sequence[Deployment]:
        return self._there

    async def instance(self, *_: object) -> Path:
        return Path("/nowhere")

    async def remove_instance(self, _path: Path) -> None:
        return

    async def command(self, *_: object, **__: object) -> CommandResult:
        return next(self._ends)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        yield journal


async def cut_short(journal: Journal, migration: MigrationSpec) -> None:
    """Release r1 has run; the migration of r2 has begun, and then all died."""
    await journal.ledger.reach("web", "r1")
    await journal.ledger.begin("web", migration, "r2", "2.0")


async def settle(app: Any) -> None:
    await settle_migrations(app)


@pytest.mark.parametrize(
    ("migration", "there", "looks", "word", "fit"),
    [
        (COMMAND, True, (), Word.FAILED, False),
        (COMMAND, False, (), Word.FAILED, False),
        (SQL, False, (), Word.FAILED, False),
        (SQL, True, SPEECHLESS, Word.FAILED, False),
        (SQL, True, (says(applied=["V1"]),), Word.DONE, False),
        (SQL, True, (says(applied=["V1"], pending=1),), Word.FAILED, False),
        (SQL, True, (says(pending=1),), Word.NOTHING, True),
        (BOTH, True, SPEECHLESS, Word.FAILED, False),
        (BOTH, True, (says(applied=["schema"]),), Word.DONE, False),
        (BOTH, True, (says(applied=["schema"], pending=1),), Word.FAILED, False),
        (BOTH, True, (says(pending=1),), Word.NOTHING, True),
    ],
)
async def test_what_was_cut_short_is_not_told_as_running_and_blocks_unless_the_database_knows_better(
    journal: Journal, tmp_path: Path, migration: MigrationSpec, there: bool, looks: Any, word: Word, fit: bool
) -> None:
    await cut_short(journal, migration)
    await settle(World(journal, [deployment(migration, tmp_path)] if there else [], looks))
    (entry,) = journal.ledger.of("web")
    assert entry.word is word
    assert journal.ledger.fit("web", "r1") is fit
    assert journal.ledger.under_way() == set()
    await journal.aclose()
    connection = sqlite3.connect(tmp_path / "journal.db")
    try:
        assert connection.execute("SELECT word FROM migrations").fetchall() == [(word.value,)]
    finally:
        connection.close()


async def test_a_database_that_could_not_be_asked_is_asked_by_the_next_agent(
    journal: Journal, tmp_path: Path
) -> None:
    await cut_short(journal, SQL)
    await settle(World(journal, [deployment(SQL, tmp_path)], SPEECHLESS))
    assert not journal.ledger.fit("web", "r1")
    await journal.aclose()
    async with await Journal.open(tmp_path / "journal.db") as after:
        await settle(World(after, [deployment(SQL, tmp_path)], (says(pending=1),)))
        assert [entry.word for entry in after.ledger.of("web")] == [Word.NOTHING]
        assert after.ledger.fit("web", "r1")


async def test_another_database_than_the_one_it_was_at_is_not_asked(journal: Journal, tmp_path: Path) -> None:
    await cut_short(journal, SQL)
    other = MigrationSpec(name="schema", sql="sql", database="sqlite:y", kind=MigrationKind.EXPAND)
    await settle(World(journal, [deployment(other, tmp_path)], (says(pending=1),)))  # of the same release
    assert [entry.word for entry in journal.ledger.of("web")] == [Word.FAILED]
    assert not journal.ledger.fit("web", "r1")


async def test_one_that_failed_before_everybodys_eyes_is_not_asked_about(
    journal: Journal, tmp_path: Path
) -> None:
    await cut_short(journal, SQL)
    await journal.ledger.end(journal.ledger.of("web")[0], Word.FAILED)
    await settle(World(journal, [deployment(SQL, tmp_path)], ()))  # a look would be one too many
    assert [entry.word for entry in journal.ledger.of("web")] == [Word.FAILED]


async def test_a_migration_that_is_cancelled_is_not_told_as_running(journal: Journal, tmp_path: Path) -> None:
    begun = asyncio.Event()

    class Waiting:
        async def command(self, *_: object, **__: object) -> CommandResult:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    processes: Any = Waiting()
    there = deployment(COMMAND, tmp_path)
    work = Work(processes=processes, ledger=journal.ledger, deployment=there, instance=tmp_path)
    await journal.ledger.reach("web", "r1")
    task = asyncio.ensure_future(up(work, COMMAND, "migrate"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (entry,) = journal.ledger.of("web")
    assert entry.word is Word.FAILED
    assert entry.unseen
    assert not journal.ledger.fit("web", "r1")


@pytest.mark.parametrize("migration", [COMMAND, SQL, BOTH], ids=["command", "sql", "both"])
@pytest.mark.parametrize("stuck", [True, False], ids=["cannot be ended", "cannot be started"])
async def test_only_what_could_not_even_be_started_is_told_as_nothing(
    migration: MigrationSpec, stuck: bool, journal: Journal, tmp_path: Path
) -> None:
    class Failing(World):
        async def command(self, *_: object, **__: object) -> CommandResult:
            raise OperatorNeeded("ProcessStuck" if stuck else "NoResources", "no")

    processes: Any = Failing(journal, (), ())
    there = deployment(migration, tmp_path)
    work = Work(processes=processes, ledger=journal.ledger, deployment=there, instance=tmp_path)
    await journal.ledger.reach("web", "r1")
    with pytest.raises(OperatorNeeded):
        await up(work, migration, "migrate")
    (entry,) = journal.ledger.of("web")
    assert (entry.word, entry.unseen) == ((Word.FAILED, True) if stuck else (Word.NOTHING, False))
    assert journal.ledger.fit("web", "r1") is not stuck


async def test_one_that_was_killed_and_cannot_be_asked_about_is_not_told_as_nothing(
    journal: Journal, tmp_path: Path
) -> None:
    class Deaf(World):
        async def command(self, *_: object, **__: object) -> CommandResult:
            if (end := next(self._ends, None)) is None:
                raise OperatorNeeded("NoResources", "no process can be started")
            return end

    processes: Any = Deaf(journal, (), SPEECHLESS)
    there = deployment(SQL, tmp_path)
    work = Work(processes=processes, ledger=journal.ledger, deployment=there, instance=tmp_path)
    await journal.ledger.reach("web", "r1")
    with pytest.raises(OperatorNeeded, match="no process"):
        await up(work, SQL, "migrate")
    (entry,) = journal.ledger.of("web")
    assert (entry.word, entry.unseen) == (Word.FAILED, True)
    assert not journal.ledger.fit("web", "r1")


async def test_nothing_is_migrated_before_the_next_agent_could_find_out_from_what(
    journal: Journal, tmp_path: Path
) -> None:
    async def not_yet() -> None:
        raise OSError("not written")

    there = deployment(SQL, tmp_path)
    context: Any = SimpleNamespace(
        app="web", id="r-1", spec=there.spec, deployment=there, instance=tmp_path, journal=journal,
        processes=World(journal, [], ()), written=not_yet, deployments=SimpleNamespace(linked=lambda _: None),
        progress=None, waits=None,
    )  # fmt: skip
    with pytest.raises(OSError, match="not written"):
        await Migrate().run(context, PlannedStep("migrate", "migrate", "", (), {"migration": "schema"}))
    assert journal.ledger.of("web") == []


# -- taking back ---------------------------------------------------------------------------------------

DOWN = MigrationSpec(name="schema", command=("up",), down=("down",), kind=MigrationKind.REVERSIBLE)
SQL_DOWN = MigrationSpec(name="schema", sql="sql", database="sqlite:x", kind=MigrationKind.REVERSIBLE)


async def taken_back(journal: Journal, migration: MigrationSpec) -> None:
    """Release r2 has run, and what it did was being taken back for r1 when all died."""
    await cut_short(journal, migration)
    (entry,) = journal.ledger.of("web")
    await journal.ledger.end(entry, Word.DONE)
    await journal.ledger.reach("web", "r2")
    await journal.ledger.end(entry, Word.UNDOING)


@pytest.mark.parametrize(
    ("migration", "looks", "left", "word", "older", "own"),
    [
        (DOWN, (), (), Word.FAILED, False, False),
        (DOWN, (), ((1, CommandResult(0, None, ())),), Word.UNDONE, True, False),
        (DOWN, (), ((1, KILLED),), Word.FAILED, False, False),
        (SQL_DOWN, (), ((1, says(pending=1)),), Word.UNDONE, True, False),
        (SQL_DOWN, SPEECHLESS, ((1, KILLED),), Word.FAILED, False, False),
        (SQL_DOWN, SPEECHLESS, (), Word.FAILED, False, False),
        (SQL_DOWN, (says(applied=["V1"]),), (), Word.DONE, False, True),
        (SQL_DOWN, (says(applied=["V1"], pending=1),), (), Word.FAILED, False, False),
        (SQL_DOWN, (says(pending=1),), (), Word.UNDONE, True, False),
    ],
)
async def test_what_was_being_taken_back_is_not_told_so_for_ever_and_nobody_runs_on_what_may_be_half_of_it(
    journal: Journal, tmp_path: Path, migration: MigrationSpec, looks: Any, left: Any, word: Word,
    older: bool, own: bool,
) -> None:  # fmt: skip
    await taken_back(journal, migration)
    assert journal.ledger.under_way() == {"web"}
    for _ in range(2):  # nor does the next agent make more of it
        await settle(World(journal, [deployment(migration, tmp_path)], looks, left))
        left, looks = (), SPEECHLESS
        (entry,) = journal.ledger.of("web")
        assert entry.word is word
        assert (journal.ledger.fit("web", "r1"), journal.ledger.fit("web", "r2")) == (older, own)
    assert journal.ledger.under_way() == set()


async def test_a_down_that_fails_is_not_told_as_under_way(journal: Journal, tmp_path: Path) -> None:
    class Failing(World):
        def judge(self, *_: object) -> None:
            raise OperatorNeeded("MigrationFailed", "no")

    await taken_back(journal, DOWN)
    processes: Any = Failing(journal, (), (CommandResult(1, None, ()),))
    there = deployment(DOWN, tmp_path)
    work = Work(processes=processes, ledger=journal.ledger, deployment=there, instance=tmp_path)
    with pytest.raises(OperatorNeeded):
        await down(work, DOWN, "down schema", journal.ledger.of("web"), "1.0")
    (entry,) = journal.ledger.of("web")
    assert entry.word is Word.FAILED
    assert not journal.ledger.fit("web", "r1")
    assert not journal.ledger.fit("web", "r2")


async def test_what_could_not_be_written_down_was_not_begun() -> None:
    async def full(*_: object) -> None:
        raise OperatorNeeded("DiskFull", "no room")

    ledger = Ledger([], {("web", "r1"): 0}, lambda _, durable: full() if durable else written())
    with pytest.raises(OperatorNeeded):
        await ledger.begin("web", COMMAND, "r2", "2.0")
    assert [entry.word for entry in ledger.of("web")] == [Word.NOTHING]
    assert ledger.fit("web", "r1")


def written() -> asyncio.Future[None]:
    """A plain write, which nobody awaits."""
    return asyncio.get_running_loop().create_future()
