"""What becomes of a migration, by how its child ended: in the ledger, and for the run."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.deploy.deployments import Deployment, pair_of
from agent.deploy.journal import Journal
from agent.deploy.ledger import Word
from agent.deploy.migrating import Work, up
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.domain.spec import AppSpec, MigrationKind, MigrationSpec
from agent.migrator.order import Answer
from agent.process.command import CommandResult

SQL = MigrationSpec(name="schema", sql="sql", database="sqlite:x", kind=MigrationKind.IRREVERSIBLE)
KILLED = CommandResult(None, 9, ("[1/1] V1__a.sql",))


def said(**answer: Any) -> CommandResult:
    """A child that ended with this answer."""
    found = Answer(**answer)
    return CommandResult(0 if found.outcome == "done" else 1, None, ("a line", found.line()))


class Scripted:
    """Stands for the processes: each command ends as it is told."""

    def __init__(self, *ends: CommandResult | Failure) -> None:
        self._ends = itertools.chain(ends)

    async def command(self, *_: object, **__: object) -> CommandResult:
        end = next(self._ends)
        if isinstance(end, Failure):
            raise end
        return end


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        yield journal


@pytest.mark.parametrize(
    ("ends", "word", "failure"),
    [
        ([said(applied=["V1"])], Word.DONE, None),
        ([said()], Word.UNNEEDED, None),
        ([said(outcome="permanent", reason="MigrationFailed")], Word.NOTHING, Permanent),
        ([said(outcome="permanent", reason="MigrationFailed", applied=["V1"])], Word.FAILED, Permanent),
        ([said(outcome="transient", reason="DatabaseUnavailable", unsure=True)], Word.FAILED, Transient),
        ([said(outcome="operator", reason="BaselineMissing")], Word.NOTHING, OperatorNeeded),
        ([KILLED, said(pending=1)], Word.NOTHING, Permanent),
        ([KILLED, said(applied=["V1"])], Word.FAILED, Permanent),
        ([KILLED, KILLED], Word.FAILED, Permanent),
        ([KILLED, said(outcome="transient", reason="DatabaseUnavailable")], Word.FAILED, Permanent),
        ([Permanent("CommandNotExecutable", "it may not be executed")], Word.NOTHING, OperatorNeeded),
    ],
)
async def test_the_ledger_knows_what_is_known(
    journal: Journal, ends: list[Any], word: Word, failure: type[Failure] | None, tmp_path: Path
) -> None:
    spec = AppSpec(name="web", version="2.0", migrate=(SQL,))
    deployment = Deployment(pair_of(spec, "r2", "c"), spec, tmp_path, None, None)
    processes: Any = Scripted(*ends)
    work = Work(processes=processes, ledger=journal.ledger, deployment=deployment, instance=tmp_path)
    await journal.ledger.reach("web", "r1")
    if failure is None:
        await up(work, SQL, "migrate")
    else:
        with pytest.raises(failure) as caught:
            await up(work, SQL, "migrate")
        assert all("emptybox-migration" not in line for line in caught.value.info.log)
    (entry,) = journal.ledger.of("web")
    assert entry.word is word
    assert journal.ledger.fit("web", "r1") is (word in (Word.NOTHING, Word.UNNEEDED))


async def test_what_another_hosts_release_did_is_learned(journal: Journal, tmp_path: Path) -> None:
    spec = AppSpec(name="web", version="3.0", migrate=(SQL,))
    deployment = Deployment(pair_of(spec, "r3", "c"), spec, tmp_path, None, None)
    processes: Any = Scripted(said(breaking=[["r2", "2.0", "irreversible"]]))
    work = Work(processes=processes, ledger=journal.ledger, deployment=deployment, instance=tmp_path)
    await journal.ledger.reach("web", "r1")
    await up(work, SQL, "migrate")
    assert [entry.release for entry in journal.ledger.ahead("web", "r1")] == ["r2"]
