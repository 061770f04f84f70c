"""One SQLite file, one connection, one thread of its own: the event loop never waits for a disk.

Writes come in two kinds. A plain write is queued and forgotten: a few milliseconds' worth of them share
one transaction, which survives the end of the process but maybe not a power cut (synchronous=NORMAL in
WAL mode, sqlite.org/wal.html). A durable write is awaited and is on the disk when that ends
(synchronous=FULL); so is every write queued before it. Order is kept always. Reads see every write
queued before them.

A transaction that fails takes its durable writes with it, whose callers hear of it. Its plain writes are
tried again with the next transaction when the cause may pass (a full disk, a busy file). One that finds the
file damaged, or not there any more, is carried out in a new one, if the owner knows how to begin it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

LINGER = 0.01  # seconds a plain write waits for company
BACKLOG = 10_000  # statements kept for another try; older ones are given up
CLOSING = 10.0  # seconds the thread is given to write what is left

Statement = tuple[str, tuple[str | int | float | bytes | None, ...]]

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MAY_PASS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}


class _Queued:
    """What a plain write returns: awaiting it takes no time."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_QUEUED = _Queued()


@dataclass(slots=True)
class _Job:
    """Plain statements, then durable ones, then a read; the future is told when all that is done."""

    plain: list[Statement] = field(default_factory=list)
    durable: tuple[Statement, ...] = ()
    read: Callable[[sqlite3.Connection], Any] | None = None
    future: asyncio.Future[Any] | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is done about a file that was damaged or taken away while it was in use. Called in the thread.

    `sound()` says whether the file is still the one that was opened; asked before each transaction.
    `connect(damaged)` gives another connection, once the old one is closed; it may raise anything.
    """

    sound: Callable[[], bool]
    connect: Callable[[bool], sqlite3.Connection]


class Database:
    """See the module. Belongs to the event loop it was opened on; made by `open`, ended by `aclose`.

    `on_error` is called on the loop with the error of each transaction that failed and held plain
    writes, and with None when one succeeds after that.
    """

    def __init__(
        self, name: str, on_error: Callable[[Exception | None], None], renewal: Renewal | None
    ) -> None:
        """Use `open`."""
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._on_error = on_error
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._pending: list[Statement] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        # Below: the thread's own.
        self._backlog: list[Statement] = []
        self._synchronous = ""
        self._failing = False
        self._renewal = renewal
        self._connection: sqlite3.Connection | None = None
        self._damaged = False

    @classmethod
    async def open(
        cls,
        connect: Callable[[], sqlite3.Connection],
        *,
        name: str,
        on_error: Callable[[Exception | None], None],
        renewal: Renewal | None = None,
    ) -> Self:
        """Start the thread and let it `connect` (isolation_level None, WAL). Raises what `connect` raises."""
        self = cls(name, on_error, renewal)
        opened: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._work, args=(connect, opened), name=name, daemon=True)
        thread.start()
        try:
            await opened
        except asyncio.CancelledError:
            self._closing = True
            self._queue.put(_Job(last=True))
            raise
        return self

    def write(self, *statements: Statement, durable: bool = False) -> Awaitable[None]:
        """Queue statements that belong together. Await the answer of a durable write; others need it not.

        Raises RuntimeError after `aclose` began; a durable write sqlite3.Error when awaited.
        """
        if self._closing:
            raise RuntimeError(f"{self._name} is closed")
        if durable:
            return self._send(_Job(durable=statements))
        self._pending += statements
        if self._timer is None:
            self._timer = self._loop.call_later(LINGER, self._flush)
        return _QUEUED

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """`read(connection)` in the thread, after all writes queued so far. Raises what it raises."""
        if self._closing:
            raise RuntimeError(f"{self._name} is closed")
        result: T = await self._send(_Job(read=read))
        return result

    async def aclose(self) -> None:
        """Write what is queued, close the file, end the thread. Says so if that takes too long."""
        if not self._closing:
            self._closing = True
            self._flush(_Job(last=True))
        try:
            async with asyncio.timeout(CLOSING):
                await asyncio.shield(self._ended)
        except TimeoutError:
            log.error("%s: the disk does not take what is left to write", self._name)

    def _send(self, job: _Job) -> asyncio.Future[Any]:
        job.future = self._loop.create_future()
        self._flush(job)
        return job.future

    def _flush(self, job: _Job | None = None) -> None:
        """Hand everything queued to the thread, and `job` with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        job = job or _Job()
        job.plain, self._pending = self._pending, []
        self._queue.put(job)

    # -- in the thread ----------------------------------------------------------------------------

    def _work(self, connect: Callable[[], sqlite3.Connection], opened: asyncio.Future[None]) -> None:
        try:
            self._connection = connect()
        except BaseException as error:
            self._resolve(opened, error=error)
            return
        self._resolve(opened)
        try:
            last = False
            while not last:
                jobs = [self._queue.get()]
                with contextlib.suppress(queue.Empty):
                    while True:
                        jobs.append(self._queue.get_nowait())
                self._serve(jobs)
                last = any(job.last for job in jobs)
        finally:
            self._disconnect()
            self._resolve(self._ended)

    def _serve(self, jobs: list[_Job]) -> None:
        plain = [*self._backlog, *(s for job in jobs for s in job.plain)]
        problem: BaseException | None = None
        try:
            self._record(self._in_order(jobs), durable=any(job.durable for job in jobs))
        except Exception as error:
            problem = error
            kept = plain if primary_code(error) in _MAY_PASS or self._connection is None else []
            self._backlog = kept[-BACKLOG:]
            if plain:
                self._failing = True
                self._tell(self._on_error, error)
        else:
            self._backlog = []
            if self._failing:
                self._failing = False
                self._tell(self._on_error, None)
        for job in jobs:
            if job.future is None:
                continue
            if job.read is None:
                self._resolve(job.future, error=problem)
                continue
            try:
                self._resolve(job.future, job.read(self._connected()))
            except Exception as error:
                self._damaged = self._damaged or primary_code(error) in _DAMAGED
                self._resolve(job.future, error=error)

    def _record(self, statements: list[Statement], *, durable: bool) -> None:
        """Make one transaction of all writes, if need be in a new file."""
        if not statements:
            return
        if self._renewal is None:
            self._transact(self._connected(), statements, durable=durable)
            return
        if self._damaged or (self._connection is not None and not self._renewal.sound()):
            self._disconnect()
        try:
            self._transact(self._connected(), statements, durable=durable)
        except sqlite3.Error as error:
            if primary_code(error) not in _DAMAGED:
                raise
            self._damaged = True
            self._disconnect()
            self._transact(self._connected(), statements, durable=durable)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            assert self._renewal is not None
            self._connection = self._renewal.connect(self._damaged)
            self._damaged = False
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._synchronous = ""
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _in_order(self, jobs: list[_Job]) -> list[Statement]:
        return [*self._backlog, *(s for job in jobs for s in (*job.plain, *job.durable))]

    def _transact(
        self, connection: sqlite3.Connection, statements: list[Statement], *, durable: bool
    ) -> None:
        if not statements:
            return
        synchronous = "FULL" if durable else "NORMAL"
        if synchronous != self._synchronous:
            connection.execute(f"PRAGMA synchronous={synchronous}")
            self._synchronous = synchronous
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, arguments in statements:
                connection.execute(sql, arguments)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _resolve(
        self, future: asyncio.Future[Any], result: object = None, *, error: BaseException | None = None
    ) -> None:
        def resolve() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tell(resolve)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            log.debug("%s: the event loop ended first", self._name)


def primary_code(error: Exception) -> int:
    """SQLite's primary result code, the low byte of any (sqlite.org/rescode.html); 0 for other errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
