"""The journal's file in use: its thread, its errors as ones a person can act on, and its renewal.

A file that is found damaged, or is not there any more, gives way to a new one in the middle of the agent's
life. What of the journal is kept in memory is written into that, so that nothing is tried again, told again
or forgotten which anybody still acts on; what is gone is history.

Where the file cannot be opened at all, though an agent has to look after apps that run, a *makeshift* in
memory takes its place. It refuses durable writes: nothing that depends on them can be done with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from agent.deploy.journal_schema import Lost, connect, failure, in_memory
from agent.domain.errors import Failure, FailureInfo, OperatorNeeded
from agent.kit.database import Database, Renewal, Statement

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 10.0  # seconds that somebody waits who can do without an answer

OnError = Callable[[FailureInfo | None], None]
OnLost = Callable[[Lost], None]


class JournalFile:
    """Made by `open`. `lost` says why another file could not be used, at the opening or since.

    `makeshift` says why there is no file, and is None else.
    """

    def __init__(self, path: Path, on_error: OnError | None, on_lost: OnLost | None) -> None:
        """Use `open`."""
        self.path = path
        self.lost: Lost | None = None
        self.makeshift: Failure | None = None
        self.kept: Callable[[], Iterable[Statement]] = tuple
        self._on_error, self._on_lost = on_error, on_lost
        self._loop = asyncio.get_running_loop()
        self._opened = (0, 0)  # device and inode
        self._database: Database

    @classmethod
    async def open(
        cls, path: Path, *, on_error: OnError | None, on_lost: OnLost | None, expected: bool
    ) -> Self:
        """See `Journal.open`. Raises OperatorNeeded."""
        self = cls(path, on_error, on_lost)
        try:
            self._database = await Database.open(
                lambda: self._connect(expected=expected),
                name="journal",
                on_error=self._trouble,
                renewal=Renewal(self._sound, self._renew),
            )
        except Failure as error:
            if not expected:
                raise
            self.makeshift = error
            self._database = await Database.open(in_memory, name="makeshift", on_error=self._trouble)
            self._trouble(error)
        self._tell_lost()
        return self

    async def aclose(self) -> None:
        """Write what is queued and close the file."""
        await self._database.aclose()

    def write(self, statements: tuple[Statement, ...], durable: bool = False) -> Awaitable[None]:
        """Queue statements that belong together; awaiting durable ones raises OperatorNeeded."""
        if durable and self.makeshift is not None:
            return _Refused(self.makeshift)
        written = self._database.write(*statements, durable=durable)
        return _Durable(written, self.path) if durable else written

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """`read(connection)` after all writes so far. Raises OperatorNeeded."""
        try:
            return await self._database.read(read)
        except sqlite3.Error as error:
            raise failure(error, self.path) from error

    async def look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """As `read`, for what nothing depends on. Raises OperatorNeeded, also when nothing answers."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.read(read)
        except TimeoutError:
            raise OperatorNeeded(
                "DiskSilent",
                f"the journal has not answered for {PATIENCE:g} s",
                where=str(self.path),
                remedy="look at the disk; all goes on by itself once it answers",
            ) from None

    async def in_time(self, write: Awaitable[None]) -> None:
        """Await a durable write, or go on when the disk does not answer: it is made once it does.

        For what counts already. Raises OperatorNeeded.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await write
        except TimeoutError:
            log.warning("the journal's disk does not answer; what it is to have is kept until it does")

    async def usable(self) -> bool:
        """Whether the file can be opened by now."""

        def opens() -> bool:
            try:
                connect(self.path)[0].close()
            except Failure:
                return False
            return True

        return await asyncio.to_thread(opens)

    # -- in the thread ----------------------------------------------------------------------------

    def _connect(self, *, expected: bool, damaged: bool = False) -> sqlite3.Connection:
        connection, self.lost = connect(self.path, expected=expected, damaged=damaged)
        found = self.path.stat()
        self._opened = found.st_dev, found.st_ino
        return connection

    def _sound(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        except OSError:  # it cannot be said
            return True
        return (found.st_dev, found.st_ino) == self._opened

    def _renew(self, damaged: bool) -> sqlite3.Connection:
        connection = self._connect(expected=True, damaged=damaged)
        self._loop.call_soon_threadsafe(self._renewed)
        return connection

    # -- on the loop ------------------------------------------------------------------------------

    def _renewed(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self._database.write(*self.kept())
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self.lost is not None and self._on_lost is not None:
            self._on_lost(self.lost)

    def _trouble(self, error: Exception | None) -> None:
        info = None if error is None else failure(error, self.path).info
        if info is None:
            log.info("the journal can be written again")
        else:
            log.error("%s", info)
        if self._on_error is not None:
            self._on_error(info)


class _Refused:
    """A durable write that cannot be."""

    def __init__(self, why: Failure) -> None:
        self._why = why

    def __await__(self) -> Generator[Any, None, None]:
        info = self._why.info
        yield from ()
        raise OperatorNeeded(info.reason, info.message, where=info.where, remedy=info.remedy)


class _Durable:
    """A durable write under way; awaiting it raises OperatorNeeded instead of sqlite3.Error."""

    def __init__(self, written: Awaitable[None], path: Path) -> None:
        self._written = written
        self._path = path

    def __await__(self) -> Generator[Any, None, None]:
        try:
            yield from self._written.__await__()
        except sqlite3.Error as error:
            raise failure(error, self._path) from error
