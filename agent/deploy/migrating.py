"""Carrying out one migration: as a command of the app's user, and into the ledger before and after.

| | who runs it | who knows whether it ran |
|---|---|---|
| command | the keeper, like every command | the ledger |
| command with `database` | `agent.migrator`, with the database's lock | the history in the database |
| sql | the same | the same, in the transaction of each file |

A migration that ended without a word (killed) has changed what the history says; without one, nobody knows.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.deploy.deployments import Deployment
from agent.deploy.ledger import Entry, Ledger, Word, identity_of, release_of
from agent.deploy.processes import Processes
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.domain.spec import MigrationKind, MigrationSpec
from agent.migrator import order
from agent.migrator.order import ANSWER, Answer, Order, read_answer
from agent.process.command import CommandResult
from agent.process.stop import STUCK

T = TypeVar("T")
PROGRAM = Path(order.__file__).with_name("run.py")
LOOKING = 10.0  # seconds that others are waited for when nothing is to be done
MARGIN = 60.0  # seconds beyond a migration's own timeout, so that it speaks first
BACK_TO = "EMPTYBOX_ROLLBACK_TO"  # tells a down for which version it is
_FILE = re.compile(r"\[([0-9]+)/([0-9]+)\] (.+)")
_KINDS: dict[str, type[Failure]] = {
    "permanent": Permanent,
    "transient": Transient,
    "operator": OperatorNeeded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Where a migration runs: the deployment that brings it, put together in `instance`.

    `progress` hears how many files of how many are done, `waits` for whom it waits ("" for nobody).
    """

    processes: Processes
    ledger: Ledger
    deployment: Deployment
    instance: Path
    progress: Callable[[int, int], None] = lambda _done, _total: None
    waits: Callable[[str], None] = lambda _: None

    @property
    def app(self) -> str:
        """The app's name."""
        return self.deployment.spec.name

    @property
    def release(self) -> str:
        """What the ledger calls the release."""
        return release_of(self.deployment.pair)

    def heard(self, lines: Sequence[str]) -> None:
        """Make out of the last lines how far it is."""
        self.waits(lines[-1] if lines and lines[-1].startswith("waiting for ") else "")
        for line in reversed(lines):
            if found := _FILE.match(line):
                self.progress(int(found[1]) - 1, int(found[2]))
                return


def longest(migration: MigrationSpec) -> float:
    """Seconds that it may take: its own timeout, after waiting as long for others, and a margin."""
    return migration.timeout * (2 if migration.database else 1) + MARGIN


async def up(work: Work, migration: MigrationSpec, step: str) -> None:
    """Migrate; at once done when the ledger says that it was. Raises Failure."""
    ledger = work.ledger
    before = ledger.find(work.app, identity_of(migration, work.release))
    if not migration.database and before is not None and before.word is Word.DONE:
        return
    touched = before is not None and before.word in (Word.RUNNING, Word.FAILED, Word.UNDOING)
    version = work.deployment.spec.version
    entry = await ledger.begin(work.app, migration, work.release, version)
    try:
        if migration.database:
            await _by_child(work, migration, entry, step, touched)
        else:
            await _by_command(work, migration, entry, step, touched)
    except BaseException:  # it was cancelled, or cannot be ended, or nobody could be asked what it did
        if entry.word is Word.RUNNING:
            ledger.cut_short(entry)
        raise


async def _ran(ledger: Ledger, entry: Entry, touched: bool, program: Awaitable[T]) -> T:
    """Wait for the program that migrates. One that could not even be started changed nothing."""
    try:
        return await program
    except Failure as failure:
        if failure.info.reason != STUCK:
            await ledger.end(entry, Word.FAILED if touched else Word.NOTHING)
        raise


async def _by_command(work: Work, migration: MigrationSpec, entry: Entry, step: str, touched: bool) -> None:
    command = work.processes.command(
        work.deployment, work.instance, step, migration.command, migration.timeout, entry=entry.number
    )
    result = await _ran(work.ledger, entry, touched, command)
    await settle_command(work.ledger, entry, result, touched)
    work.processes.judge(result, step, "MigrationFailed")


async def settle_command(ledger: Ledger, entry: Entry, result: CommandResult, touched: bool) -> None:
    """Write down how a command ended that has no other ledger. Raises OperatorNeeded."""
    if result.ok:
        await ledger.end(entry, Word.DONE)
    else:
        await ledger.end(entry, Word.NOTHING if result.later and not touched else Word.FAILED)


async def _by_child(work: Work, migration: MigrationSpec, entry: Entry, step: str, touched: bool) -> None:
    asked = _ask(work, migration, step, "up", (), entry.number)
    result, answer = await _ran(work.ledger, entry, touched, asked)
    if answer is None and migration.sql:  # killed: its transaction is over by now, one way or the other
        _, stands = await _ask(work, migration, f"{step} (what was done)", "look")
        known = stands is not None and stands.outcome == "done"
        await work.ledger.end(entry, Word.NOTHING if known and stands and not stands.applied else Word.FAILED)
    elif answer is None:
        await work.ledger.end(entry, Word.FAILED)
    else:
        await settle_answer(work.ledger, entry, answer)
    _judge(result, answer, step)


async def settle_answer(ledger: Ledger, entry: Entry, answer: Answer) -> None:
    """Write down what a child answered. Raises OperatorNeeded."""
    for release, version, kind in answer.breaking:
        if release != entry.release:
            ledger.learn(entry.app, entry.name, MigrationKind(kind), release, version)
    changed = bool(answer.applied) or answer.unsure
    if answer.outcome == "done":
        await ledger.end(entry, Word.DONE if changed else Word.UNNEEDED)
    else:
        await ledger.end(entry, Word.FAILED if changed else Word.NOTHING)


def _judge(result: CommandResult, answer: Answer | None, step: str) -> None:
    """Raise what the end means."""
    log = said(result.log)
    if answer is None:
        raise Permanent("MigrationFailed", f"{step} {result.ended}", remedy="see its last lines", log=log)
    if answer.outcome == "later":
        raise Transient("Later", f"{step} asked to be tried again later", log=log)
    if answer.outcome != "done":
        raise _KINDS[answer.outcome](
            answer.reason, f"{step}: {answer.message}", remedy=answer.remedy, log=log
        )


def said(lines: Collection[str]) -> tuple[str, ...]:
    """The lines of an output that are for people."""
    return tuple(line for line in lines if not line.startswith(ANSWER))


async def _ask(
    work: Work,
    migration: MigrationSpec,
    step: str,
    mode: str,
    undo: tuple[str, ...] = (),
    entry: int = 0,
    back_to: str = "",
) -> tuple[CommandResult, Answer | None]:
    """Start the child that does it. Raises Failure when it cannot start."""
    wanted = Order(
        app=work.app,
        name=migration.name,
        kind=migration.kind,
        release=work.release,
        version=work.deployment.spec.version,
        host=os.uname().nodename,
        database=migration.database,
        mode=mode,
        sql=str(work.instance / migration.sql) if migration.sql else "",
        command=migration.down if mode == "down" else migration.command,
        baseline=migration.baseline,
        undo=undo,
        timeout=migration.timeout,
        wait=LOOKING if mode == "look" else migration.timeout,
    )
    try:
        result = await work.processes.command(
            work.deployment, work.instance, step, (sys.executable, "-I", str(PROGRAM)), longest(migration),
            {order.VARIABLE: wanted.text(), **({BACK_TO: back_to} if back_to else {})}, work.heard, entry,
            on_host=True,
        )  # fmt: skip
    except Permanent as error:  # nothing is wrong with the app
        raise OperatorNeeded(
            error.reason,
            f"{step}: the app's user cannot start emptybox's own program: {error.info.message}",
            where=error.info.where,
            remedy="let that user read and enter the directory emptybox is installed in",
        ) from error
    return result, read_answer(result.log)


async def look(work: Work, migration: MigrationSpec, step: str) -> Answer | None:
    """What a database says was done; None when it does not say. Raises Failure when it cannot start."""
    _, answer = await _ask(work, migration, step, "look")
    return answer if answer is not None and answer.outcome == "done" else None


async def down(
    work: Work, migration: MigrationSpec, step: str, entries: Sequence[Entry], version: str
) -> None:
    """Take back what these entries did, for the release of `version`. Raises Failure.

    What was taken back is so in the ledger; of what failed or was cut short nobody knows.
    """
    for entry in entries:
        await work.ledger.end(entry, Word.UNDOING)
    try:
        await _undone(work, migration, step, entries, version)
    except BaseException:
        for entry in entries:
            work.ledger.cut_short(entry)
        raise
    for entry in entries:
        await work.ledger.end(entry, Word.UNDONE)


async def _undone(
    work: Work, migration: MigrationSpec, step: str, entries: Sequence[Entry], version: str
) -> None:
    number = entries[0].number
    if migration.database:
        releases = tuple(dict.fromkeys(entry.release for entry in entries))
        result, answer = await _ask(work, migration, step, "down", releases, number, back_to=version)
        _judge(result, answer, step)
        return
    result = await work.processes.command(
        work.deployment, work.instance, step, migration.down, migration.timeout, {BACK_TO: version},
        entry=number,
    )  # fmt: skip
    work.processes.judge(result, step, "MigrationFailed")
