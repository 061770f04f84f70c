"""The ledger: which releases can run on what was done to the data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.deploy.journal import Journal
from agent.deploy.ledger import Ledger, Word, identity_of
from agent.deploy.way_back import FREE, vouch, way_back
from agent.domain.spec import AppSpec, MigrationKind, MigrationSpec

KINDS = list(MigrationKind)
BREAKING = [kind for kind in KINDS if kind.breaking]


def migration(kind: MigrationKind = MigrationKind.EXPAND, name: str = "schema") -> MigrationSpec:
    down = ("down",) if kind is MigrationKind.REVERSIBLE else ()
    return MigrationSpec(name=name, command=("up",), kind=kind, down=down)


async def done(ledger: Ledger, what: MigrationSpec, release: str, word: Word = Word.DONE) -> None:
    entry = await ledger.begin("web", what, release, release[1:])
    if word is not Word.RUNNING:
        await ledger.end(entry, word)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        yield journal


@pytest.mark.parametrize("kind", KINDS)
async def test_behind_a_breaking_migration_only_its_own_release_and_later_ones_can_run(
    journal: Journal, kind: MigrationKind
) -> None:
    ledger = journal.ledger
    await ledger.reach("web", "r1")
    await done(ledger, migration(kind), "r2")
    await ledger.reach("web", "r2")
    await ledger.reach("web", "r3")  # without a migration of its own
    assert ledger.fit("web", "r1") is not kind.breaking
    assert ledger.fit("web", "r2")
    assert ledger.fit("web", "r3")
    assert ledger.fit("other", "r1")


@pytest.mark.parametrize(
    ("word", "blocks"),
    [
        (Word.RUNNING, True), (Word.DONE, True), (Word.FAILED, True), (Word.UNDOING, True),
        (Word.NOTHING, False), (Word.UNNEEDED, False), (Word.UNDONE, False),
    ],
)  # fmt: skip
async def test_what_may_have_changed_something_counts(journal: Journal, word: Word, blocks: bool) -> None:
    await journal.ledger.reach("web", "r1")
    await done(journal.ledger, migration(MigrationKind.IRREVERSIBLE), "r2", word)
    assert journal.ledger.fit("web", "r1") is not blocks


async def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    what = migration(MigrationKind.CONTRACT)
    async with await Journal.open(path) as journal:
        await journal.ledger.reach("web", "r1")
        await done(journal.ledger, what, "r2")
        await done(journal.ledger, migration(name="other"), "r2", Word.RUNNING)
        await journal.ledger.reach("web", "r2")
    async with await Journal.open(path) as journal:
        ledger = journal.ledger
        assert ledger.through("web", identity_of(what, "r2"))
        assert not ledger.through("web", identity_of(what, "r3"))
        assert [entry.word for entry in ledger.of("web")] == [Word.DONE, Word.RUNNING]
        assert not ledger.fit("web", "r1")
        assert ledger.fit("web", "r2")
        assert ledger.knows("web", "r1")
        assert not ledger.knows("web", "r9")


async def test_work_that_was_cut_short_keeps_its_number(journal: Journal) -> None:
    what = migration(MigrationKind.IRREVERSIBLE)
    first = await journal.ledger.begin("web", what, "r2", "2")
    again = await journal.ledger.begin("web", what, "r2", "2")
    assert again.number == first.number
    await journal.ledger.end(again, Word.NOTHING)
    assert (await journal.ledger.begin("web", what, "r2", "2")).number > first.number


async def test_a_release_whose_own_work_was_taken_back_cannot_just_be_started(journal: Journal) -> None:
    ledger, what = journal.ledger, migration(MigrationKind.REVERSIBLE)
    await ledger.reach("web", "r1")
    await done(ledger, what, "r2", Word.UNDONE)
    assert ledger.fit("web", "r1")
    assert not ledger.fit("web", "r2")
    await done(ledger, what, "r2")
    assert ledger.fit("web", "r2")
    assert not ledger.fit("web", "r1")


async def test_what_another_host_did_counts_here_too(journal: Journal) -> None:
    ledger = journal.ledger
    await ledger.reach("web", "r1")
    for _ in range(2):
        ledger.learn("web", "schema", MigrationKind.IRREVERSIBLE, "r2", "2")
    await ledger.reach("web", "r3")
    assert len(ledger.of("web")) == 1
    assert not ledger.fit("web", "r1")
    assert ledger.fit("web", "r3")


async def test_a_way_back_is_free_or_takes_back_or_says_why_not(journal: Journal) -> None:
    ledger = journal.ledger
    reversible, final = migration(MigrationKind.REVERSIBLE), migration(MigrationKind.CONTRACT, "tidy")
    leaving = AppSpec(name="web", version="2", migrate=(reversible, final))
    await ledger.reach("web", "r1")
    assert way_back(ledger, "web", "r1", "1", leaving, allowed=True) == FREE
    await done(ledger, reversible, "r2")
    assert way_back(ledger, "web", "r1", "1", leaving, allowed=True).downs == ("schema",)
    assert "rollback: {down: true}" in way_back(ledger, "web", "r1", "1", leaving, allowed=False).blocked
    assert "is not there" in way_back(ledger, "web", "r1", "1", None, allowed=True).blocked
    await done(ledger, final, "r2")
    blocked = way_back(ledger, "web", "r1", "1", leaving, allowed=True)
    assert "version 1 cannot run on today's data: contract migration tidy of version 2" in blocked.blocked
    vouch(ledger, blocked)
    assert ledger.fit("web", "r1")
    assert not ledger.fit("web", "r2")
