"""The ledger: what was done to the data of apps, and which releases can run on what that left behind.

    begun --> running --> done        something was changed, or nothing was left to do (unneeded)
                 |  +---> nothing     it failed, or asked for later, before anything was changed
                 |  +---> failed      it failed, and what it changed stays, or nobody knows
    done, failed --> undoing --> undone    its down has run; or an operator vouched for the data
                        +------> failed    its down failed or was cut short: nobody knows what it did

Failed without a length (`seconds`) is one whose end nobody saw, because agent or tree died over it: each
next agent asks again where there is a database to be asked, and until it says nothing else it counts.

Each entry has a number. A release has *reached* the number up to which its data are those it was started
on: behind every breaking entry (see `MigrationKind`) with a higher one it cannot run any more. An entry that
is running, or failed, may have changed something, and counts. Nor can a release run whose own work is
undone, before it is done again; or half undone, maybe: reversible, and failed without a length.

Kept in the journal and, all of it, in memory. For a migration with a `database` the history in that database
is the truth about what has run, and this is what the agent knows of it when it has to go back in a hurry.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.domain.model import Pair
from agent.domain.spec import MigrationKind, MigrationSpec
from agent.kit.database import Statement

KEPT = 300  # entries of an app; breaking ones always stay
RELEASES = 500  # of an app, whose numbers are known


class Word(StrEnum):
    """What became of an entry."""

    RUNNING = "running"
    DONE = "done"
    UNNEEDED = "unneeded"
    NOTHING = "nothing"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"


TABLES = """
CREATE TABLE migrations (
  number INTEGER PRIMARY KEY, app TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
  release TEXT NOT NULL, version TEXT NOT NULL, identity TEXT NOT NULL, word TEXT NOT NULL,
  began REAL NOT NULL, seconds REAL
);
CREATE TABLE reached (
  app TEXT NOT NULL, release TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (app, release)
);
"""


@dataclass(slots=True)
class Entry:
    """One migration of one release. `began` is seconds since the epoch; `version` is for people."""

    number: int
    app: str
    name: str
    kind: MigrationKind
    release: str
    version: str
    identity: str
    word: Word
    began: float
    seconds: float | None = None

    @property
    def counts(self) -> bool:
        """Whether older releases cannot run because of it."""
        return self.kind.breaking and self.word in (Word.RUNNING, Word.DONE, Word.FAILED, Word.UNDOING)

    @property
    def unseen(self) -> bool:
        """Whether nobody has seen its end: it is under way, or was cut short."""
        return self.under_way or self.cut_short

    @property
    def under_way(self) -> bool:
        """Whether it is being done, or undone."""
        return self.word in (Word.RUNNING, Word.UNDOING)

    @property
    def cut_short(self) -> bool:
        """Whether nobody knows what it did."""
        return self.word is Word.FAILED and self.seconds is None

    @property
    def lacking(self) -> bool:
        """Whether its own release cannot run because of it."""
        halved = self.cut_short and self.kind is MigrationKind.REVERSIBLE
        return halved or self.word in (Word.UNDOING, Word.UNDONE)

    @property
    def told(self) -> str:
        """For people: irreversible migration schema of version 2.0."""
        return f"{self.kind} migration {self.name} of version {self.version}"


def release_of(pair: Pair) -> str:
    """What a ledger calls a release: its digest; without an artifact that of the specification."""
    return pair.release or pair.spec


def identity_of(migration: MigrationSpec, release: str) -> str:
    """The same work for the same release has the same."""
    what = (release, migration.name, migration.command, migration.sql, migration.database)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


class Ledger:
    """Reading is instant; changes are written through `write` (see `Journal`)."""

    def __init__(
        self,
        entries: list[Entry],
        reached: dict[tuple[str, str], int],
        write: Callable[[tuple[Statement, ...], bool], Awaitable[None]],
    ) -> None:
        self._entries = {entry.number: entry for entry in entries}
        self._reached = reached
        self._write = write

    # -- reading -----------------------------------------------------------------------------------

    def of(self, app: str) -> list[Entry]:
        """The entries of an app, oldest first."""
        return [self._entries[n] for n in sorted(self._entries) if self._entries[n].app == app]

    def find(self, app: str, identity: str) -> Entry | None:
        """The newest entry of this work."""
        return next((e for e in reversed(self.of(app)) if e.identity == identity), None)

    def through(self, app: str, identity: str) -> bool:
        """Whether this work needs not be done again."""
        entry = self.find(app, identity)
        return entry is not None and entry.word in (Word.DONE, Word.UNNEEDED)

    def under_way(self) -> set[str]:
        """Apps of which an entry is told as being done, or undone."""
        return {entry.app for entry in self._entries.values() if entry.under_way}

    def knows(self, app: str, release: str) -> bool:
        """Whether a release has run here."""
        return (app, release) in self._reached

    def ahead(self, app: str, release: str) -> list[Entry]:
        """What was done to the data since a release was started last, so that it cannot run, newest first."""
        reached = self._reached.get((app, release), 0)
        found = [e for e in self.of(app) if e.counts and e.number > reached and e.release != release]
        return list(reversed(found))

    def lacks(self, app: str, release: str) -> list[Entry]:
        """Work of a release that is undone, so that it cannot just be started."""
        newest = {entry.name: entry for entry in self.of(app) if entry.release == release}
        return [entry for entry in newest.values() if entry.lacking]

    def fit(self, app: str, release: str) -> bool:
        """Whether a release can be started as it is."""
        return not self.ahead(app, release) and not self.lacks(app, release)

    # -- writing -----------------------------------------------------------------------------------

    async def begin(self, app: str, migration: MigrationSpec, release: str, version: str) -> Entry:
        """Work begins: on the disk before it does. Raises OperatorNeeded.

        Work that was cut short keeps its number: what it did then is done.
        """
        identity = identity_of(migration, release)
        entry = self.find(app, identity)
        before: tuple[Word, float, float | None] = (Word.NOTHING, time.time(), 0.0)
        if entry is None or entry.word in (Word.NOTHING, Word.UNDONE, Word.UNNEEDED):
            number = max(self._entries, default=0) + 1
            entry = Entry(
                number,
                app,
                migration.name,
                migration.kind,
                release,
                version,
                identity,
                Word.RUNNING,
                time.time(),
            )
            self._entries[number] = entry
        else:
            before = (entry.word, entry.began, entry.seconds)
            entry.word, entry.began, entry.seconds = Word.RUNNING, time.time(), None
        try:
            await self._write((_stored(entry), *self._prune(app)), True)
        except BaseException:  # it does not begin, whenever that is written
            entry.word, entry.began, entry.seconds = before
            self._write((_stored(entry),), False)
            raise
        return entry

    def end(self, entry: Entry, word: Word, *, durable: bool = True) -> Awaitable[None]:
        """Work has ended. Raises OperatorNeeded when awaited."""
        entry.word, entry.seconds = word, time.time() - entry.began
        return self._write((_stored(entry),), durable)

    def cut_short(self, entry: Entry) -> None:
        """It does not run any more, and nobody knows what it did."""
        entry.word, entry.seconds = Word.FAILED, None
        self._write((_stored(entry),), False)  # lost in a power cut, it is found out again

    def learn(self, app: str, name: str, kind: MigrationKind, release: str, version: str) -> None:
        """The database says that another host did this; unless it is known."""
        if any((e.name, e.release, e.kind) == (name, release, kind) and e.counts for e in self.of(app)):
            return
        number = max(self._entries, default=0) + 1
        entry = Entry(number, app, name, kind, release, version, "", Word.DONE, time.time(), 0.0)
        self._entries[number] = entry
        self._write((_stored(entry),), False)

    async def reach(self, app: str, release: str) -> None:
        """This release runs on the data as they are, from now on. Raises OperatorNeeded."""
        number = max((e.number for e in self.of(app) if e.counts), default=0)
        before = self._reached.get((app, release))
        if before is not None and before >= number:
            return
        self._reached.pop((app, release), None)
        self._reached[app, release] = number
        statements: list[Statement] = [(_REACHED, (app, release, number))]
        mine = [key for key in self._reached if key[0] == app]
        for key in mine[:-RELEASES]:
            del self._reached[key]
            statements.append(("DELETE FROM reached WHERE app = ? AND release = ?", key))
        await self._write(tuple(statements), number > 0)

    def stored(self) -> list[Statement]:
        """What writes all of it into a new journal."""
        reached: list[Statement] = [(_REACHED, (*key, number)) for key, number in self._reached.items()]
        return [*map(_stored, self._entries.values()), *reached]

    def _prune(self, app: str) -> tuple[Statement, ...]:
        mine = self.of(app)
        gone = [e.number for e in mine[: max(0, len(mine) - KEPT)] if not e.counts]
        for number in gone:
            del self._entries[number]
        return tuple(("DELETE FROM migrations WHERE number = ?", (number,)) for number in gone)


_REACHED = "INSERT OR REPLACE INTO reached (app, release, number) VALUES (?, ?, ?)"


def _stored(entry: Entry) -> Statement:
    return (
        "INSERT OR REPLACE INTO migrations"
        " (number, app, name, kind, release, version, identity, word, began, seconds)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.number, entry.app, entry.name, entry.kind.value, entry.release, entry.version,
            entry.identity, entry.word.value, entry.began, entry.seconds,
        ),
    )  # fmt: skip


def read(connection: sqlite3.Connection) -> tuple[list[Entry], dict[tuple[str, str], int]]:
    """Everything in the tables."""
    rows = connection.execute(
        "SELECT number, app, name, kind, release, version, identity, word, began, seconds FROM migrations"
    )
    entries = [
        Entry(number, app, name, MigrationKind(kind), release, version, identity, Word(word), began, seconds)
        for number, app, name, kind, release, version, identity, word, began, seconds in rows
    ]
    reached = connection.execute("SELECT app, release, number FROM reached ORDER BY rowid")
    return entries, {(app, release): number for app, release, number in reached}
