"""The journal's file: its tables, its version, and what happens when it cannot be used.

| what is found | what follows |
|---|---|
| nothing | a new file |
| an older version | brought up to date, step by step |
| a newer version, or a damaged file | moved aside, a new one; the agent goes on, its history does not |
| no room, no rights | OperatorNeeded |
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from agent.deploy import exec_ledger, ledger
from agent.deploy.jobs import ledger as job_ledger
from agent.domain.errors import Failure, OperatorNeeded
from agent.kit.database import Statement, primary_code
from agent.notify import outbox

VERSION = 5
KEEP_RUNS = 1000
KEEP_SYNCS = 1000

_NO_RIGHTS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN)

# Times are seconds since the epoch, durations seconds. Specifications are never stored, so no secret
# can be. `seq` gives the order of happening; ids come from clocks, which may be set back.
_TABLES = """
CREATE TABLE syncs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
  kinds TEXT NOT NULL, detail TEXT NOT NULL, commit_id TEXT NOT NULL DEFAULT '',
  started REAL NOT NULL, ended REAL, result TEXT NOT NULL, failure BLOB
);
CREATE TABLE runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
  sync TEXT NOT NULL, app TEXT NOT NULL, reason TEXT NOT NULL, plan BLOB NOT NULL,
  spec TEXT NOT NULL, version TEXT NOT NULL, commit_id TEXT NOT NULL,
  started REAL NOT NULL, ended REAL, result TEXT NOT NULL, failure BLOB
);
CREATE INDEX runs_of_an_app ON runs (app, seq);
CREATE TABLE steps (
  run TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, attempt INTEGER NOT NULL,
  started REAL, seconds REAL, result TEXT NOT NULL, failure BLOB,
  undone INTEGER NOT NULL DEFAULT 0, undo_failure BLOB,
  PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE marks (
  seq INTEGER PRIMARY KEY, run TEXT NOT NULL, name TEXT NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX marks_of_a_run ON marks (run, seq);
CREATE TABLE quarantine (
  app TEXT NOT NULL, spec TEXT NOT NULL, failure BLOB NOT NULL, since REAL NOT NULL,
  PRIMARY KEY (app, spec)
) WITHOUT ROWID;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# From each older version to the next.
_UPGRADES: dict[int, str] = {1: outbox.TABLE, 2: job_ledger.TABLES, 3: ledger.TABLES, 4: exec_ledger.TABLE}

COMPACTION: tuple[Statement, ...] = (
    (
        "DELETE FROM runs WHERE seq <= (SELECT seq FROM runs ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (KEEP_RUNS,),
    ),
    ("DELETE FROM steps WHERE run NOT IN (SELECT id FROM runs)", ()),
    ("DELETE FROM marks WHERE run NOT IN (SELECT id FROM runs)", ()),
    (
        "DELETE FROM syncs WHERE seq <= (SELECT seq FROM syncs ORDER BY seq DESC LIMIT 1 OFFSET ?)"
        " AND id NOT IN (SELECT sync FROM runs)",
        (KEEP_SYNCS,),
    ),
    *job_ledger.COMPACTION,
)


@dataclass(frozen=True, slots=True)
class Lost:
    """Why there is a new journal in the place of another, and where that is kept, if it is.

    `reason` is Damaged, Newer or Missing.
    """

    reason: str
    aside: Path | None = None


class _Newer(Exception):
    """The journal has a format that is not known here."""


def connect(
    path: Path, *, expected: bool = False, damaged: bool = False
) -> tuple[sqlite3.Connection, Lost | None]:
    """The journal, checked and up to date; and what became of its predecessor, if it could not be used.

    `expected`: there should be one. `damaged`: the one that is there is known to be. Blocks. Raises
    OperatorNeeded.
    """
    lost = None
    try:
        if damaged:
            lost = Lost("Damaged", _move_aside(path, "corrupt"))
        try:
            connection, fresh = _open(path)
        except _Newer:
            lost = Lost("Newer", _move_aside(path, "newer"))
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            lost = Lost("Damaged", _move_aside(path, "corrupt"))
        else:
            return connection, lost or (Lost("Missing") if fresh and expected else None)
        return _open(path)[0], lost
    except (sqlite3.Error, OSError) as error:
        raise failure(error, path) from error


def failure(error: Exception, path: Path) -> Failure:
    """An error of the journal as something a person can act on."""
    if isinstance(error, Failure):
        return error
    code = primary_code(error)
    system = getattr(error, "errno", 0)
    if code == sqlite3.SQLITE_FULL or system in (errno.ENOSPC, errno.EDQUOT):
        return OperatorNeeded(
            "DiskFull",
            f"the journal cannot be written: {error}",
            where=str(path),
            remedy="free space on the data directory's file system",
        )
    if system == errno.EROFS or (code in _NO_RIGHTS and _read_only(path)):
        return OperatorNeeded(
            "DiskReadOnly",
            f"the journal cannot be written: {error}",
            where=str(path),
            remedy="make the data directory's file system writable",
        )
    if code in _NO_RIGHTS or system in (errno.EACCES, errno.EPERM, errno.ENOENT):
        return OperatorNeeded(
            "PermissionDenied",
            f"the journal cannot be written: {error}",
            where=str(path),
            remedy="let the agent's user write in its data directory",
        )
    return OperatorNeeded(
        "JournalFailed",
        f"the journal cannot be used: {error}",
        where=str(path),
        remedy="look at the disk; a journal moved away is begun anew at the next start",
    )


def _read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def in_memory() -> sqlite3.Connection:
    """A journal that nothing is kept of."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _transact(connection, _script(";".join([_TABLES, *_UPGRADES.values()])))
    return connection


def _open(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The connection, and whether nothing was there."""
    path.touch(0o600)  # the log beside it gets the same mode
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA cache_size=-512")
        connection.execute("PRAGMA journal_size_limit=4194304")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise _Newer
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            damage = sqlite3.DatabaseError(verdict)
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        steps = [_TABLES] if version == 0 else []
        steps += [_UPGRADES[older] for older in range(max(version, 1), VERSION)]
        _transact(connection, [*_script(";".join(steps)), (f"PRAGMA user_version={VERSION}", ())])
        _transact(connection, (*COMPACTION, exec_ledger.INTERRUPTION))
    except BaseException:
        connection.close()
        raise
    return connection, version == 0


def _script(text: str) -> list[Statement]:
    return [(part, ()) for part in text.split(";") if part.strip()]


def _transact(connection: sqlite3.Connection, statements: list[Statement] | tuple[Statement, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, arguments in statements:
            connection.execute(sql, arguments)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _move_aside(path: Path, why: str) -> Path | None:
    """Returns where it is, None when it was not there."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.{why}-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{why}-{stamp}-{number}")
    # The log first: were it left beside a new file, its pages would be taken for that file's.
    for tail in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside
