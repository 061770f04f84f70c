"""Specifications that failed and are not tried again by themselves.

Kept in the journal and, all of it, in memory: the planner asks without waiting.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from agent.deploy.journal_rows import bounded
from agent.domain.errors import FailureInfo
from agent.kit.database import Statement

MOST = 100  # entries of one app; older ones go: whoever wants such a version again has it tried again


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An app's spec digest, why it was set aside, and since when (seconds since the epoch)."""

    app: str
    spec: str
    failure: FailureInfo
    since: float


class Quarantine:
    """Who is in it. Reading is instant; changes are written through `write` (see `Journal`)."""

    def __init__(
        self, entries: list[Quarantined], write: Callable[[tuple[Statement, ...], bool], Awaitable[None]]
    ) -> None:
        self._entries = {(entry.app, entry.spec): entry for entry in entries}
        self._write = write

    def find(self, app: str, spec: str) -> Quarantined | None:
        """The entry of this spec digest of this app."""
        return self._entries.get((app, spec))

    def list(self, app: str = "") -> list[Quarantined]:
        """All entries of an app (or of all apps), oldest first."""
        chosen = (e for e in self._entries.values() if app in ("", e.app))
        return sorted(chosen, key=lambda entry: entry.since)

    def add(self, app: str, spec: str, failure: FailureInfo, *, durable: bool = False) -> Awaitable[None]:
        """Set a spec digest aside; the newest failure replaces an older one, and `MOST` of an app stay."""
        entry = Quarantined(app, spec, bounded(failure), time.time())
        self._entries.pop((app, spec), None)
        self._entries[app, spec] = entry
        older = [key for key in self._entries if key[0] == app][:-MOST]
        return self._write((_stored(entry), *self._forget(older)), durable)

    def remove(self, app: str = "", spec: str = "", *, durable: bool = False) -> Awaitable[None]:
        """Let a spec digest go; or all of an app, or all there are."""
        gone = [key for key in self._entries if app in ("", key[0]) and spec in ("", key[1])]
        return self._write(self._forget(gone), durable)

    def _forget(self, gone: Sequence[tuple[str, str]]) -> tuple[Statement, ...]:
        for key in gone:
            del self._entries[key]
        return tuple(("DELETE FROM quarantine WHERE app = ? AND spec = ?", key) for key in gone)

    def stored(self) -> tuple[Statement, ...]:
        """What writes all of it into a new journal."""
        return tuple(map(_stored, self._entries.values()))

    def release(self, reasons: Collection[str]) -> None:
        """Let go what was set aside for one of these reasons."""
        for app, spec in [key for key, entry in self._entries.items() if entry.failure.reason in reasons]:
            self.remove(app, spec)


def _stored(entry: Quarantined) -> Statement:
    return (
        "INSERT OR REPLACE INTO quarantine (app, spec, failure, since) VALUES (?, ?, ?, ?)",
        (entry.app, entry.spec, msgspec.json.encode(entry.failure), entry.since),
    )


def read(connection: sqlite3.Connection) -> list[Quarantined]:
    """Everything in the table."""
    rows = connection.execute("SELECT app, spec, failure, since FROM quarantine ORDER BY since")
    return [
        Quarantined(app, spec, msgspec.json.decode(failure, type=FailureInfo), since)
        for app, spec, failure, since in rows
    ]
