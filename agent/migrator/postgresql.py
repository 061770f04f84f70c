"""PostgreSQL, by psycopg: an advisory lock of this session says who migrates the database.

The lock is asked for again and again and not waited for: a statement that waits has a snapshot, for which
CREATE INDEX CONCURRENTLY in turn would wait. A pooler that gives each transaction another session
(pgbouncer's transaction mode) keeps no such lock: name the server itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agent.migrator.database import Rows, Tell
from agent.migrator.problems import OPERATOR, Problem, failed, unavailable, unusable
from agent.migrator.statements import statements

if TYPE_CHECKING:
    from psycopg import Connection, Error

LOCK = 0x656D7074_79626F78  # "emptybox": one lock a database, whatever the app
EVERY = 0.2  # seconds between two tries for it
CONNECTING = 15  # seconds
_OURS = ("emptybox_history",)
_PASSING = ("08", "40", "53", "55P03", "57P")  # what passes by itself: connection, deadlock, room, shutdown


class PostgreSQL:
    """See `Database`."""

    def __init__(self, url: str, who: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise Problem(
                OPERATOR, "DriverMissing", f"there is no driver for PostgreSQL here: {error}",
                remedy="install emptybox[postgresql]",
            ) from None  # fmt: skip
        self._error = psycopg.Error
        self._idle = psycopg.pq.TransactionStatus.IDLE
        try:
            self._connection: Connection[Any] = psycopg.connect(
                url, autocommit=True, connect_timeout=CONNECTING, application_name=who[:63],
                prepare_threshold=None, keepalives_idle=30, keepalives_interval=10, keepalives_count=3,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            raise unavailable(f"the database does not let us in: {_one_line(error)}") from None
        except psycopg.Error as error:
            raise unusable(f"the database's URL is none: {_one_line(error)}", "mend `database`") from None
        self._connection.add_notice_handler(
            lambda notice: print(f"{notice.severity}: {notice.message_primary}", flush=True)
        )

    def lock(
        self,
        who: str,  # noqa: ARG002 - the session has its name
        seconds: float,
        tell: Tell,
    ) -> None:
        """See Database."""
        until, told = time.monotonic() + seconds, ""
        while not self.query(f"SELECT pg_try_advisory_lock({LOCK})")[0][0]:
            holder = self._holder()
            if holder != told:
                tell(f"waiting for {holder}")
                told = holder
            if time.monotonic() > until:
                raise unavailable(f"still waiting for {holder} after {seconds:g} s")
            time.sleep(EVERY)

    def _holder(self) -> str:
        rows = self.query(
            "SELECT a.application_name, a.client_addr::text, a.pid FROM pg_locks l JOIN pg_stat_activity a"
            " ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND l.classid::bigint = ? AND l.objid::bigint = ?"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            LOCK >> 32,
            LOCK & 0xFFFFFFFF,
        )
        if not rows:
            return "another session"
        name, address, pid = rows[0]
        return f"{name or 'somebody'}{f' from {address}' if address else ''}, server process {pid}"

    def query(self, sql: str, *arguments: str | float | None) -> Rows:
        """See Database."""
        with self._told():
            cursor = self._connection.execute(sql.replace("?", "%s"), arguments or None)
            return cursor.fetchall() if cursor.description is not None else []

    def begin(self) -> None:
        """See Database."""
        self.query("BEGIN")

    def commit(self) -> None:
        """See Database. When the connection is lost here, nobody knows whether it is done."""
        self.query("COMMIT")

    def rollback(self) -> None:
        """See Database."""
        with contextlib.suppress(self._error):
            if not self._connection.closed and self._connection.info.transaction_status != self._idle:
                self._connection.execute("ROLLBACK")

    def script(self, text: str, seconds: float) -> None:
        """See Database."""
        self._at_most(seconds)
        with self._told(text):
            self._connection.execute(text)
        if self._connection.info.transaction_status == self._idle:
            raise failed("it ends its own transaction: write executeInTransaction=false for it", unsure=True)

    def separately(self, text: str, seconds: float) -> None:
        """See Database."""
        until = time.monotonic() + seconds
        for statement in statements(text):
            self._at_most(max(0.001, until - time.monotonic()))
            with self._told(statement, " of the statement"):
                self._connection.execute(statement)
        self._at_most(0)

    def _at_most(self, seconds: float) -> None:
        self.query("SELECT set_config('statement_timeout', ?, false)", str(int(seconds * 1000)))

    def has_table(self, name: str) -> bool:
        """See Database."""
        return self.query("SELECT to_regclass(?) IS NOT NULL", name)[0][0] is True

    def tables(self) -> list[str]:
        """See Database."""
        rows = self.query(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace"
            " AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relname NOT IN (?)"
            " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
            " ORDER BY c.relname LIMIT 10",
            *_OURS,
        )
        return [name for (name,) in rows]

    def ping(self) -> None:
        """See Database."""
        self.query("SELECT 1")

    def close(self) -> None:
        """See Database."""
        with contextlib.suppress(self._error):
            self._connection.close()

    @contextlib.contextmanager
    def _told(self, text: str = "", where: str = "") -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise self._problem(error, text, where) from error

    def _problem(self, error: Error, text: str, where: str) -> Problem:
        code = error.sqlstate or ""
        if self._connection.closed or not code or code.startswith(_PASSING):
            return unavailable(f"the database broke off: {_one_line(error)}", unsure=True)
        if code == "42501":
            return unusable(f"the database refuses: {_one_line(error)}", "give the database's user the right")
        if code == "57014":
            return failed("it was not done within its timeout and was stopped")
        place = error.diag.statement_position
        line = text.count("\n", 0, int(place) - 1) + 1 if place and text else 0
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        return failed(
            f"{error.diag.message_primary}{detail}{f' in line {line}{where}' if line else ''} [{code}]"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
