"""What a migration needs of a database, whatever its kind; and which kind a URL names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agent.migrator.order import Order
from agent.migrator.problems import Problem, unusable

Tell = Callable[[str], None]
Rows = list[tuple[Any, ...]]


class Database(Protocol):
    """One connection. Without `begin` each statement is its own transaction. Every method raises Problem."""

    def lock(self, who: str, seconds: float, tell: Tell) -> None:
        """Be the only one that migrates this database, until `close` or the end of this process.

        Waits at most so many seconds, and tells for whom.
        """

    def query(self, sql: str, *arguments: str | float | None) -> Rows:
        """One statement of our own, with `?` for each argument."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """End it well."""

    def rollback(self) -> None:
        """End it badly; of none, and of a connection that is gone, nothing is left anyway."""

    def script(self, text: str, seconds: float) -> None:
        """Run a whole file within the transaction, no statement longer than so many seconds."""

    def separately(self, text: str, seconds: float) -> None:
        """Run a file's statements one by one, without a transaction."""

    def has_table(self, name: str) -> bool:
        """Whether there is such a table where ours belong."""

    def tables(self) -> list[str]:
        """Names of what somebody has made there already, the first few."""

    def ping(self) -> None:
        """See whether the connection, and with it the lock, is still there."""

    def close(self) -> None:
        """Let everything go."""


def connect(order: Order) -> Database:
    """The database of a URL. Raises Problem."""
    scheme = order.database.partition(":")[0].lower()
    if scheme in ("postgresql", "postgres"):
        from agent.migrator.postgresql import PostgreSQL  # its driver is imported when it is needed

        return PostgreSQL(order.database, order.who)
    if scheme == "sqlite":
        from agent.migrator.sqlite import SQLite

        return SQLite(order.database)
    raise unknown(scheme)


def unknown(scheme: str) -> Problem:
    """A URL of another database."""
    return unusable(
        f"a database of kind {scheme[:20]!r} is not known",
        "write postgresql://… or sqlite:path, or a command",
    )
