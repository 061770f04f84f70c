"""SQLite: a file, and a lock beside it (flock(2)), which says who has it and ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from agent.migrator.database import Rows, Tell
from agent.migrator.problems import Problem, failed, unavailable, unusable

BUSY = 30.0  # seconds a writer of the app's is waited for
EVERY = 0.1  # seconds between two tries for the lock
_STEPS = 10_000  # of SQLite's machine between two looks at the clock

_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OURS = ("emptybox_history",)


class SQLite:
    """See `Database`. The path of `sqlite:data/app.db` is relative to the app's directory."""

    def __init__(self, url: str) -> None:
        self.path = Path(path_of(url))
        self._deadline = 0.0
        self._lock = -1
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY)
            # With less, a power cut may take back a transaction that was told as done.
            self._connection.execute("PRAGMA synchronous=EXTRA")
            self._connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error as error:
            raise self._problem(error) from error
        self._connection.set_progress_handler(self._late, _STEPS)

    def _late(self) -> int:
        return int(self._deadline > 0 and time.monotonic() > self._deadline)

    def lock(self, who: str, seconds: float, tell: Tell) -> None:
        """See Database."""
        path = self.path.with_name(self.path.name + ".emptybox-lock")
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise unusable(
                f"{path} cannot be made: {error.strerror}", "let the app's user write there"
            ) from None
        until, told = time.monotonic() + seconds, ""
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(self._lock, 200, 0).decode(errors="replace").strip() or "another process"
                if holder != told:
                    tell(f"waiting for {holder}")
                    told = holder
                if time.monotonic() > until:
                    raise unavailable(f"still waiting for {holder} after {seconds:g} s") from None
                time.sleep(EVERY)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{who}, pid {os.getpid()}\n".encode(), 0)

    def query(self, sql: str, *arguments: str | float | None) -> Rows:
        """See Database."""
        with self._told():
            return self._connection.execute(sql, arguments).fetchall()

    def begin(self) -> None:
        """See Database. At once as a writer: a lock that is asked for later may never be given."""
        self.query("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """See Database."""
        self.query("COMMIT")

    def rollback(self) -> None:
        """See Database."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def script(self, text: str, seconds: float) -> None:
        """See Database."""
        self._deadline = time.monotonic() + seconds
        # executescript commits what was begun before it, so the transaction is begun, empty so far, in it.
        self.rollback()
        with self._told(seconds):
            self._connection.executescript("BEGIN IMMEDIATE;\n" + text)
        if not self._connection.in_transaction:
            raise failed("it ends its own transaction: write executeInTransaction=false for it", unsure=True)

    def separately(self, text: str, seconds: float) -> None:
        """See Database. SQLite itself takes them one by one."""
        self._deadline = time.monotonic() + seconds
        try:
            with self._told(seconds):
                self._connection.executescript(text)
        finally:
            self.rollback()

    def has_table(self, name: str) -> bool:
        """See Database."""
        return bool(self.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name))

    def tables(self) -> list[str]:
        """See Database."""
        rows = self.query(
            "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name LIMIT 10"
        )
        return [name for (name,) in rows if name not in _OURS]

    def ping(self) -> None:
        """See Database. A file and a lock of the kernel's stay."""

    def close(self) -> None:
        """See Database."""
        self._connection.close()
        if self._lock >= 0:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    @contextlib.contextmanager
    def _told(self, seconds: float = 0.0) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.rollback()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise failed(f"it was not done within {seconds:g} s and was stopped") from error
            raise self._problem(error) from error
        except sqlite3.Warning as error:  # older Pythons' word for two statements in one
            raise failed(str(error)) from error
        finally:
            self._deadline = 0.0

    def _problem(self, error: sqlite3.Error) -> Problem:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _PASSING:
            return unavailable(f"{self.path.name}: {error}")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return unusable(f"{self.path}: {error}", "let the app's user write the file and its directory")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
            return unusable(f"{self.path}: {error}", "look at the disk and at the file")
        return failed(str(error))


def path_of(url: str) -> str:
    """The file of sqlite:data/app.db, sqlite:/var/lib/app.db or sqlite:///var/lib/app.db. Raises Problem."""
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise unusable(f"{url[:80]} names a host", "write sqlite:data/app.db or sqlite:///var/lib/app.db")
        rest = slash + path
    rest = rest.partition("?")[0]
    if not rest or rest == "/":
        raise unusable(f"{url[:80]} names no file", "write sqlite:data/app.db or sqlite:///var/lib/app.db")
    return rest
