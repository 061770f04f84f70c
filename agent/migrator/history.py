"""The history: a table of ours in the database that is migrated, which says what was done to it, and by whom.

A row is written in the transaction of what it tells, so that the two agree whatever happens. Where there is
no such transaction (a command, a file without one) it says `running` before and `done` after.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from agent.migrator.database import Database
from agent.migrator.files import Version, parse_version
from agent.migrator.order import Order

TABLE = "emptybox_history"
RUNNING, DONE, FAILED, UNDONE, BASELINE = "running", "done", "failed", "undone", "baseline"
BREAKING = ("contract", "reversible", "irreversible")  # kinds after which older releases cannot run

_CREATE = f"""CREATE TABLE {TABLE} (
  rank INTEGER PRIMARY KEY, app VARCHAR(200) NOT NULL, migration VARCHAR(200) NOT NULL,
  version VARCHAR(200) NOT NULL, script VARCHAR(300) NOT NULL, kind VARCHAR(20) NOT NULL,
  checksum VARCHAR(64) NOT NULL, release VARCHAR(200) NOT NULL, release_version VARCHAR(200) NOT NULL,
  state VARCHAR(20) NOT NULL, host VARCHAR(300) NOT NULL,
  began DOUBLE PRECISION NOT NULL, seconds DOUBLE PRECISION)"""
_COLUMNS = "rank, version, script, kind, checksum, release, release_version, state, host, began"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a file, or a command, that was run. `began` is seconds since the epoch."""

    rank: int
    version: Version  # () of repeatable files and of commands
    script: str
    kind: str
    checksum: str
    release: str
    release_version: str
    state: str
    host: str
    began: float

    @property
    def told(self) -> str:
        """When and by whom, for people."""
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.began))
        return f"version {self.release_version} on {self.host}, {at}"


class History:
    """The rows of one migration of one app. Belongs to who holds the database's lock."""

    def __init__(self, database: Database, order: Order) -> None:
        self._database = database
        self._order = order

    def prepare(self) -> None:
        """Make the table if it is not there."""
        if not self._database.has_table(TABLE):
            self._database.query(_CREATE)

    def rows(self) -> list[Row]:
        """All rows, oldest first."""
        if not self._database.has_table(TABLE):
            return []
        found = self._database.query(
            f"SELECT {_COLUMNS} FROM {TABLE} WHERE app = ? AND migration = ? ORDER BY rank",  # noqa: S608
            self._order.app, self._order.name,
        )  # fmt: skip
        return [Row(row[0], parse_version(row[1]) if row[1] else (), *row[2:]) for row in found]

    def add(
        self,
        version: str,
        script: str,
        checksum: str,
        state: str,
        seconds: float | None = None,
        release: str = "",
    ) -> int:
        """Write a row, of the order's release if no other is named; returns its rank."""
        order = self._order
        rank = int(self._database.query(f"SELECT coalesce(max(rank), 0) + 1 FROM {TABLE}")[0][0])  # noqa: S608
        marks = ", ".join("?" * 13)
        self._database.query(
            f"INSERT INTO {TABLE} (rank, app, migration, version, script, kind, checksum, release,"  # noqa: S608
            f" release_version, state, host, began, seconds) VALUES ({marks})",
            rank, order.app, order.name, version, script, order.kind, checksum, release or order.release,
            order.version, state, order.host, time.time() - (seconds or 0.0), seconds,
        )  # fmt: skip
        return rank

    def breaking(self) -> list[list[str]]:
        """Release, version and kind of what has run and is not undone, after which older ones cannot run."""
        newest = {row.version or (row.script, row.release): row for row in self.rows()}
        found = [
            (row.release, row.release_version, row.kind)
            for row in newest.values()
            if row.kind in BREAKING and row.state in (RUNNING, DONE)
        ]
        return [list(one) for one in dict.fromkeys(found)]

    def end(self, rank: int, state: str, seconds: float) -> None:
        """What was running has ended."""
        sql = f"UPDATE {TABLE} SET state = ?, seconds = ? WHERE rank = ?"  # noqa: S608
        self._database.query(sql, state, seconds, rank)
