"""SQL files against what the history says: which are due, and running them.

pending --begun, no transaction--> running --> done --its U file ran--> undone (pending again)
   |                                  +--cut short: runs again, whole
   +--with a transaction: nothing, or done, in one step
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from agent.migrator.database import Database, Tell
from agent.migrator.files import Directory, SqlFile, Version, parse_version, read_directory, shown
from agent.migrator.history import BASELINE, BREAKING, DONE, RUNNING, UNDONE, History, Row
from agent.migrator.order import Answer, Order
from agent.migrator.problems import OPERATOR, PERMANENT, Problem


def run_scripts(database: Database, order: Order, tell: Tell) -> Answer:
    """Do what the order says with a directory of SQL files; the database is locked. Raises Problem."""
    directory = read_directory(Path(order.sql))
    history = History(database, order)
    if order.mode == "look":
        return _look(directory, history, order)
    history.prepare()
    if order.mode == "down":
        _undo(database, history, order, directory, tell)
        return _standing(history, order)
    _begin_history(database, history, order)
    pending = due(directory, history.rows())
    for number, file in enumerate(pending, start=1):
        tell(f"[{number}/{len(pending)}] {file.script}")
        try:
            _apply(database, history, order, file, tell)
        except Problem as problem:
            problem.message = f"{file.script}: {problem.message}"
            raise
    if not pending:
        tell("nothing to do: everything has run")
    return _standing(history, order)


def _look(directory: Directory, history: History, order: Order) -> Answer:
    answer = _standing(history, order)
    try:
        answer.pending = len(due(directory, history.rows()))
    except Problem:  # whoever runs them is told
        answer.pending = 1
    return answer


def _standing(history: History, order: Order) -> Answer:
    """What this release has changed the database by, or may have."""
    newest = latest(history.rows()).values()
    applied = [r.script for r in newest if r.release == order.release and r.state in (DONE, RUNNING)]
    return Answer(applied=applied, breaking=history.breaking())


def latest(rows: Sequence[Row]) -> dict[Version | str, Row]:
    """The newest row of each version, and of each repeatable file by its name."""
    return {row.version or row.script: row for row in rows if row.state != BASELINE}


def due(directory: Directory, rows: Sequence[Row]) -> list[SqlFile]:
    """The files to run, in order: pure. Raises Problem when files and history do not go together."""
    newest = latest(rows)
    done = {key: row for key, row in newest.items() if row.state == DONE}
    base = max((row.version for row in rows if row.state == BASELINE), default=None)
    here = {file.version: file for file in directory.versioned}
    highest_here = max(here, default=())
    for key, row in done.items():
        if isinstance(key, tuple):
            _compare(row, here.get(key), key > highest_here)
    highest = max((key for key in done if isinstance(key, tuple)), default=None)
    pending = []
    for version, file in here.items():
        if version in done or (base is not None and version <= base):
            continue
        if highest is not None and version < highest:
            raise Problem(
                PERMANENT, "MigrationOutOfOrder",
                f"{file.script} has never run, and {done[highest].script}, which comes after it, has",
                remedy="give it a version behind all that have run",
            )  # fmt: skip
        pending.append(file)
    again = [f for f in directory.repeatable if f.script not in done or done[f.script].checksum != f.checksum]
    return [*pending, *again]


def _compare(row: Row, file: SqlFile | None, newer: bool) -> None:
    """Hold what has run against what is there."""
    if file is None and newer:
        if row.kind in BREAKING:
            raise Problem(
                OPERATOR, "SchemaTooNew",
                f"{row.script} ({row.kind}) has run here, by {row.told}, and this release does not know it",
                remedy="deploy a release that does",
            )  # fmt: skip
    elif file is None:
        raise Problem(
            PERMANENT, "MigrationMissing", f"{row.script} has run, by {row.told}, and is not there any more",
            remedy="put it back",
        )  # fmt: skip
    elif file.checksum != row.checksum:
        raise Problem(
            PERMANENT, "MigrationEdited",
            f"{file.script} was changed after it had run, by {row.told}:"
            f" its sha256 was {row.checksum[:12]}… and is {file.checksum[:12]}…",
            remedy="put it back as it was, and write what is new into a file of a new version",
        )  # fmt: skip


def _begin_history(database: Database, history: History, order: Order) -> None:
    """What is there already was made by somebody: `baseline` says up to which version, else nobody knows."""
    if history.rows():
        return
    there = database.tables()
    if not there:
        return
    if not order.baseline:
        raise Problem(
            OPERATOR, "BaselineMissing",
            f"the database holds {', '.join(there[:3])} already, and no history says which files made that",
            remedy="say `baseline:` with the version whose files it has (0: none of them)",
        )  # fmt: skip
    version = parse_version(order.baseline)
    history.add(shown(version), "baseline", "", BASELINE, 0.0)


def _apply(database: Database, history: History, order: Order, file: SqlFile, tell: Tell) -> None:
    began = time.monotonic()
    if file.whole:
        database.begin()
        try:
            database.script(file.text(), order.timeout)
            history.add(shown(file.version), file.script, file.checksum, DONE, time.monotonic() - began)
            database.commit()
        except BaseException:
            database.rollback()
            raise
    else:
        rank = history.add(shown(file.version), file.script, file.checksum, RUNNING)
        try:
            database.separately(file.text(), order.timeout)
        except Problem as problem:
            problem.unsure = True
            raise
        history.end(rank, DONE, time.monotonic() - began)
    tell(f"{file.script}: done in {time.monotonic() - began:.3f} s")


def _undo(database: Database, history: History, order: Order, directory: Directory, tell: Tell) -> None:
    """Take back what the releases in `order.undo` did, newest first, each with its U file."""
    done = [row for row in latest(history.rows()).values() if row.state == DONE and row.version]
    gone = sorted(
        (r for r in done if r.release in order.undo and r.kind == "reversible"), key=lambda r: r.version
    )
    stays = [row.version for row in done if row not in gone]
    for row in reversed(gone):
        file = directory.undo.get(row.version)
        if file is None:
            raise _no_way_back(f"there is no U{shown(row.version)}__….sql that takes {row.script} back")
        if any(version > row.version for version in stays):
            raise _no_way_back(f"{row.script} is not the newest that has run")
    for number, row in enumerate(reversed(gone), start=1):
        file = directory.undo[row.version]
        tell(f"[{number}/{len(gone)}] {file.script}")
        began = time.monotonic()
        database.begin()
        try:
            if file.whole:
                database.script(file.text(), order.timeout)
            else:
                database.rollback()
                database.separately(file.text(), order.timeout)
            history.add(shown(row.version), file.script, file.checksum, UNDONE, time.monotonic() - began)
            if file.whole:
                database.commit()
        except Problem as problem:
            database.rollback()
            problem.message = f"{file.script}: {problem.message}"
            raise


def _no_way_back(message: str) -> Problem:
    return Problem(OPERATOR, "NoWayBack", message, remedy="push a release that runs on today's schema")
