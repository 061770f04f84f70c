"""Who ran what in which app (`emptybox exec`), in the journal: the program, never its arguments.

An entry without an end at the start of an agent is of a command that ended with the one before.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from agent.kit.clock import rfc3339
from agent.kit.database import Statement
from agent.kit.mask import secrets

T = TypeVar("T")
KEPT = 1000
RUNNING, INTERRUPTED = "running", "interrupted"
PROGRAM_MAX = 500  # characters

TABLE = """
CREATE TABLE execs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, app TEXT NOT NULL, asked_by TEXT NOT NULL,
  program TEXT NOT NULL, arguments INTEGER NOT NULL, started REAL NOT NULL, seconds REAL, result TEXT NOT NULL
)
"""
# When the journal is opened.
INTERRUPTION: Statement = ("UPDATE execs SET result = ? WHERE result = ?", (INTERRUPTED, RUNNING))


class Read(Protocol):
    """`Journal`'s way to read."""

    async def __call__(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """`read(connection)`."""


class ExecLedger:
    """See the module. `write` and `read` are the journal's."""

    def __init__(self, write: Callable[[tuple[Statement, ...], bool], Awaitable[None]], read: Read) -> None:
        self._write = write
        self._read = read

    async def begin(self, entry: str, app: str, by: str, command: Sequence[str]) -> None:
        """On the disk before the command begins. Raises OperatorNeeded."""
        program = secrets.text(command[0])[:PROGRAM_MAX]
        values = (entry, app, by, program, len(command) - 1, time.time(), RUNNING)
        columns = "id, app, asked_by, program, arguments, started, result"
        begun: Statement = (f"INSERT INTO execs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
        older: Statement = ("DELETE FROM execs WHERE seq <= (SELECT max(seq) FROM execs) - ?", (KEPT,))
        await self._write((begun, older), True)

    def end(self, entry: str, result: str, seconds: float) -> None:
        """How it ended, in words."""
        update = "UPDATE execs SET result = ?, seconds = ? WHERE id = ?"
        self._write(((update, (result, seconds, entry)),), False)

    async def history(self, app: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """Entries of one app, or of all, as JSON, newest first."""
        return await self._read(lambda connection: _history(connection, app, max(0, min(limit, KEPT))))


def _history(connection: sqlite3.Connection, app: str, limit: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT id, app, asked_by, program, arguments, started, seconds, result FROM execs"
        " WHERE ?1 = '' OR app = ?1 ORDER BY seq DESC LIMIT ?2",
        (app, limit),
    )
    return [
        {
            "id": entry, "app": of, "by": by, "program": program, "arguments": arguments,
            "started": rfc3339(started), "result": result,
            "seconds": None if seconds is None else round(seconds, 3),
        }
        for entry, of, by, program, arguments, started, seconds, result in rows
    ]  # fmt: skip
