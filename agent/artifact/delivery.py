"""One artifact on its way into the store, as those see it who wait for it.

    source ─► hash, inflate, unpack ─► judge ─► sync, rename
         fetched                   verified      published

A `Flight` is the work, done once however many ask for one release at the same time; a `Delivery` is one
asker's view of it. The last asker who leaves before the end cancels the flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.artifact.limits import Limits
from agent.artifact.pipeline import Meter, Progress, carry, check_space, telling
from agent.artifact.release import packing
from agent.artifact.source import Source, shown
from agent.artifact.store import Store
from agent.artifact.worker import Worker
from agent.domain.errors import Failure, Transient
from agent.domain.spec import ArtifactSpec

log = logging.getLogger(__name__)
T = TypeVar("T")


class Flight:
    """The work of a delivery: run `run` once, as a task; await the futures through `asyncio.shield`.

    `run` raises nothing but CancelledError; what goes wrong is told by every future not yet done.
    """

    def __init__(self, spec: ArtifactSpec, app: str, release: str, store: Store, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self.fetched: asyncio.Future[int] = self._loop.create_future()
        self.verified: asyncio.Future[str] = self._loop.create_future()
        self.published: asyncio.Future[Path] = self._loop.create_future()
        for future in (self.fetched, self.verified, self.published):
            future.add_done_callback(_seen)
        self.release = release
        self.watchers: list[Progress | None] = []  # one for each who waits
        self.task: asyncio.Task[None] | None = None
        self._store = store
        self._limits = limits
        self._where = shown(spec.url)
        self._worker = Worker(
            store, release, packing(spec, app), spec.checksum, limits, self._where, self._verified_in_thread
        )

    async def run(self, source: Source, url: str, executor: Executor) -> None:
        """Carry the bytes of `url` into the store, or leave nothing behind."""
        try:
            with telling(self._store.root, self._where, self._limits.total):
                path = await self._carry(source, url, executor)
            _settle(self.published, path)
        except asyncio.CancelledError:
            self._fail(Transient("DeliveryCancelled", "the delivery was cancelled", where=self._where))
            raise
        except Failure as failure:
            self._fail(failure)
        except Exception as error:  # ours: whoever waits must not wait for ever
            log.exception("delivery of %s", self._where)
            self._fail(error)

    async def _carry(self, source: Source, url: str, executor: Executor) -> Path:
        async with asyncio.timeout(self._limits.total) as deadline, source.open(url) as body:
            assert body is not None  # None is only given to those who ask for a change
            check_space(self._store.root, body.size, self._where)
            meter = Meter(body.size, self._limits.body, self._where, self._tell)

            def fetched() -> None:
                deadline.reschedule(None)  # what is left to do is ours, and cannot be interrupted
                _settle(self.fetched, meter.done)

            return await carry(body, meter, self._worker, executor, fetched)

    def _verified_in_thread(self, digest: str) -> None:
        self._loop.call_soon_threadsafe(_settle, self.verified, digest)

    def _tell(self, done: int, total: int) -> None:
        for watcher in self.watchers:
            if watcher is not None:
                watcher(done, total)

    def _fail(self, error: Exception) -> None:
        for future in (self.fetched, self.verified, self.published):
            if not future.done():
                future.set_exception(error)


class Delivery:
    """One asker's view: `async with`, then await any of the three moments, in any order, or none.

    Each of the three raises what went wrong before it came: Transient (ArtifactUnavailable,
    ArtifactTimeout, ArtifactTruncated), OperatorNeeded (ArtifactDenied, CertificateRefused, FileNotAllowed,
    DiskFull, DiskReadOnly, PermissionDenied, StoreFailing) or Permanent (ArtifactNotFound,
    ArtifactTooLarge, RedirectRefused, ChecksumMismatch, ArchiveBroken, ArchiveRefused, ArchiveTooLarge,
    ArchiveUnsupported, ArchiveEmpty, ...). While it is open, `Store.collect` leaves the release alone.
    """

    def __init__(
        self,
        release: str,
        digest: str,
        store: Store,
        board: Callable[[], Flight],
        leave: Callable[[Flight], Awaitable[None]],
        progress: Progress | None,
    ) -> None:
        self.release = release
        self._digest = digest
        self._store = store
        self._board = board
        self._leave = leave
        self._progress = progress
        self._flight: Flight | None = None
        self._entered = ExitStack()

    async def __aenter__(self) -> Self:
        with ExitStack() as entering:
            entering.enter_context(self._store.using(self.release))
            if not self._store.has(self.release):
                self._flight = self._board()
                self._flight.watchers.append(self._progress)
            self._entered = entering.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._entered:
            flight, self._flight = self._flight, None
            if flight is None:
                return
            flight.watchers.remove(self._progress)
            if not flight.watchers:
                await self._leave(flight)

    async def fetched(self) -> int:
        """The whole body is here: its length in bytes; 0 when nothing had to be fetched."""
        return 0 if self._flight is None else await asyncio.shield(self._flight.fetched)

    async def verified(self) -> str:
        """The digest is right: "sha256:...". Raises Permanent (ChecksumMismatch)."""
        return self._digest if self._flight is None else await asyncio.shield(self._flight.verified)

    async def published(self) -> Path:
        """The tree is whole, on disk to stay, and in the store: its path."""
        if self._flight is None:
            return self._store.path(self.release)
        return await asyncio.shield(self._flight.published)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # nobody has to ask: without this asyncio would complain
