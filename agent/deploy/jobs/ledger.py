"""The ledger of jobs in the journal: every run, and how far each schedule is accounted for.

A due time and its row are written in one durable transaction, before anything is started for it; the table
itself refuses a second row for the same time. So none is lost silently and none is run twice, wherever the
agent dies. What is open, what was last and the standings are kept in memory, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import msgspec

from agent.deploy.journal_rows import bounded
from agent.domain.job import JobResult, JobRun, JobStanding, run_json
from agent.kit.database import Statement
from agent.kit.mask import secrets

T = TypeVar("T")

KEPT = 1000  # rows of an app
OUTPUTS = 100  # of them, with their output
LINE = 1000  # characters of a line of output
COMPACT_EVERY = 100  # rows

TABLES = """
CREATE TABLE job_runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL,
  due REAL, result TEXT NOT NULL, run BLOB NOT NULL, output TEXT
);
CREATE INDEX job_runs_of_an_app ON job_runs (app, seq);
CREATE UNIQUE INDEX job_runs_due ON job_runs (app, due) WHERE due IS NOT NULL;
CREATE TABLE job_standings (
  app TEXT PRIMARY KEY, accounted REAL NOT NULL, schedule TEXT NOT NULL, released TEXT NOT NULL
) WITHOUT ROWID
"""

_STANDING = "INSERT OR REPLACE INTO job_standings (app, accounted, schedule, released) VALUES (?, ?, ?, ?)"
_OPEN = (JobResult.WAITING.value, JobResult.RUNNING.value)
COMPACTION: tuple[Statement, ...] = (
    (
        "DELETE FROM job_runs WHERE result NOT IN (?, ?) AND seq <= (SELECT other.seq FROM job_runs AS other"
        " WHERE other.app = job_runs.app ORDER BY other.seq DESC LIMIT 1 OFFSET ?)",
        (*_OPEN, KEPT),
    ),
    (
        "UPDATE job_runs SET output = NULL WHERE output IS NOT NULL AND seq <= (SELECT other.seq"
        " FROM job_runs AS other WHERE other.app = job_runs.app ORDER BY other.seq DESC LIMIT 1 OFFSET ?)",
        (OUTPUTS,),
    ),
)


class Read(Protocol):
    """Reads in the journal's thread. Raises OperatorNeeded."""

    async def __call__(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """`read(connection)`."""


@dataclass(slots=True)
class Rows:
    """What the ledger holds when it is opened: standings, open runs, and the last ended one, by app."""

    standings: dict[str, JobStanding]
    open: dict[str, JobRun]
    last: dict[str, JobRun]


class Ledger:
    """See the module.

    Args:
        rows: what the journal holds.
        write: hands statements to the journal; awaited, they are on the disk. Raises OperatorNeeded.
        read: reads in the journal's thread.
    """

    def __init__(
        self, rows: Rows, write: Callable[[tuple[Statement, ...], bool], Awaitable[None]], read: Read
    ) -> None:
        self._rows = rows
        self._write = write
        self._read = read
        self._since_compaction = 0

    def standing(self, app: str) -> JobStanding | None:
        """How far the app's schedule is accounted for."""
        return self._rows.standings.get(app)

    def open(self, app: str) -> list[JobRun]:
        """The app's runs without an end, oldest first."""
        return [run for run in self._rows.open.values() if run.app == app]

    def last(self, app: str) -> JobRun | None:
        """The app's run that ended last."""
        return self._rows.last.get(app)

    async def save(
        self,
        app: str,
        *runs: JobRun,
        standing: JobStanding | None = None,
        anew: float | None = None,
        output: Sequence[str] = (),
    ) -> None:
        """Write rows, and with them how far the schedule is accounted for: all or nothing, on the disk.

        `anew`: the schedule begins anew at this time, and a clock that was wrong may have brought rows for
        times after it, which are no obstacle. `output` is that of the (one) run. Raises OperatorNeeded:
        then nothing of it holds.
        """
        text = "\n".join(secrets.text(line)[:LINE] for line in output) if output else None
        statements = [_upsert(run, text) for run in runs]
        if anew is not None:
            later: Statement = ("UPDATE job_runs SET due = NULL WHERE app = ? AND due > ?", (app, anew))
            statements.insert(0, later)
        if standing is not None:
            statements.append(
                (
                    _STANDING,
                    (app, standing.accounted, standing.schedule, standing.released),
                )
            )
        self._since_compaction += len(runs)
        if self._since_compaction >= COMPACT_EVERY:
            self._since_compaction = 0
            statements += COMPACTION
        await self._write(tuple(statements), True)
        if standing is not None:
            self._rows.standings[app] = standing
        for run in runs:
            if run.result.open:
                self._rows.open[run.id] = run
                continue
            self._rows.open.pop(run.id, None)
            if run.started:
                self._rows.last[app] = run

    def stored(self) -> list[Statement]:
        """What writes into a new journal all that is kept in memory: of ended runs the last of each app."""
        standings: list[Statement] = [
            (_STANDING, (app, each.accounted, each.schedule, each.released))
            for app, each in self._rows.standings.items()
        ]
        runs = [*self._rows.last.values(), *self._rows.open.values()]
        return [*standings, *(_upsert(run, None) for run in runs)]

    async def forget(self, app: str) -> None:
        """The app is gone: its history stays, its schedule begins anew should it come back."""
        self._rows.standings.pop(app, None)
        await self._write((("DELETE FROM job_standings WHERE app = ?", (app,)),), True)

    async def history(self, app: str = "", limit: int = 20, run: str = "") -> list[dict[str, Any]]:
        """Rows as JSON, newest first, of one app or run, or of all."""
        return await self._read(lambda c: _history(c, app, max(0, min(limit, KEPT)), run))


def read(connection: sqlite3.Connection) -> Rows:
    """What a ledger begins with."""
    standings = {
        app: JobStanding(accounted, schedule, released)
        for app, accounted, schedule, released in connection.execute(
            "SELECT app, accounted, schedule, released FROM job_standings"
        )
    }
    found = connection.execute(
        "SELECT run FROM job_runs WHERE result IN (?, ?) ORDER BY seq", _OPEN
    ).fetchall()
    opened = {run.id: run for run in map(_run, found)}
    newest = connection.execute(
        "SELECT run FROM job_runs WHERE seq IN (SELECT max(seq) FROM job_runs"
        " WHERE result NOT IN (?, ?, ?, ?) GROUP BY app)",
        (*_OPEN, JobResult.MISSED.value, JobResult.SKIPPED.value),
    ).fetchall()
    return Rows(standings, opened, {run.app: run for run in map(_run, newest)})


def _upsert(run: JobRun, output: str | None) -> Statement:
    kept = replace(run, failure=None if run.failure is None else bounded(replace(run.failure, log=())))
    return (
        "INSERT INTO job_runs (id, app, due, result, run, output) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET result = excluded.result, run = excluded.run,"
        " output = coalesce(excluded.output, output)",
        (run.id, run.app, run.due or None, run.result.value, msgspec.json.encode(kept), output),
    )


def _run(row: tuple[bytes]) -> JobRun:
    return msgspec.json.decode(row[0], type=JobRun)


def _history(connection: sqlite3.Connection, app: str, limit: int, run: str) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT run, output FROM job_runs WHERE (?1 = '' OR app = ?1) AND (?2 = '' OR id = ?2)"
        " ORDER BY seq DESC LIMIT ?3",
        (app, run, limit),
    )
    return [
        {**run_json(_run((body,))), "output": None if output is None else secrets.text(output).split("\n")}
        for body, output in rows
    ]
