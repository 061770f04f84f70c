"""One artifact on its way into the store, as those see it who wait for it.

    source ─► hash, inflate, unpack ─► judge ─► sync, rename
         fetched                   verified      published

A `Flight` is the work, done once however many ask for one release at the same time; a `Delivery` is one
asker's view of it. The last asker who leaves before the end cancels the flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from agent.artifact.limits import Limits
from agent.artifact.partial import Open, Partial, fetch
from agent.artifact.pipeline import Meter, Progress, Work, carry, check_space, telling
from agent.artifact.release import Packing, packing
from agent.artifact.source import Body
from agent.artifact.store import Store
from agent.artifact.trust.case import Case
from agent.artifact.trust.witness import Witness
from agent.artifact.worker import Worker
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient

log = logging.getLogger(__name__)
T = TypeVar("T")
Bring: TypeAlias = Callable[["Flight"], Awaitable[Path]]
"""Carries one artifact into the store: tells the flight of each stage, returns the tree's path."""
_OURS = ("DiskFull", "DiskReadOnly", "PermissionDenied", "StoreFailing")  # another place would not help


class Flight:
    """The work of a delivery: run `run` once, as a task; await the futures through `asyncio.shield`.

    `run` raises nothing but CancelledError; what goes wrong is told by every future not yet done.

    Args:
        release: the id to publish under.
        where: the artifact, for errors.
        key: tells it apart from others: those who want the same may share it.
    """

    def __init__(self, release: str, store: Store, limits: Limits, where: str, key: object = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.fetched: asyncio.Future[int] = self._loop.create_future()
        self.verified: asyncio.Future[str] = self._loop.create_future()
        self.published: asyncio.Future[Path] = self._loop.create_future()
        for future in (self.fetched, self.verified, self.published):
            future.add_done_callback(_seen)
        self.release = release
        self.store = store
        self.limits = limits
        self.where = where
        self.key = key
        self.case: Case | None = None  # of its signatures, to be judged with its bytes
        self.warning = ""  # what people should know although it works
        self.watchers: list[Progress | None] = []  # one for each who waits
        self.task: asyncio.Task[None] | None = None
        self._deadline: asyncio.Timeout | None = None

    async def run(self, bring: Bring) -> None:
        """Let `bring` carry the artifact into the store, or leave nothing behind."""
        try:
            with telling(self.store.root, self.where, self.limits.total):
                async with asyncio.timeout(self.limits.total) as self._deadline:
                    path = await bring(self)
            _settle(self.published, path)
        except asyncio.CancelledError:
            self._fail(Transient("DeliveryCancelled", "the delivery was cancelled", where=self.where))
            raise
        except Failure as failure:
            self._fail(failure)
        except Exception as error:  # ours: whoever waits must not wait for ever
            log.exception("delivery of %s", self.where)
            self._fail(error)

    def tell(self, done: int, total: int) -> None:
        """So many bytes are here, of so many (0: not known)."""
        for watcher in self.watchers:
            if watcher is not None:
                watcher(done, total)

    def all_fetched(self, size: int) -> None:
        """Nothing more is asked of others: what is left to do is ours, and cannot be interrupted."""
        if self._deadline is not None:
            self._deadline.reschedule(None)
        _settle(self.fetched, size)

    def again(self, why: Failure, what: str = "is fetched anew") -> None:
        """What was fetched is of no use: all of it is asked for again, with a deadline of its own."""
        log.warning("%s %s: %s", self.where, what, why.info.message)
        if self._deadline is not None:
            self._deadline.reschedule(self._loop.time() + self.limits.total)

    def is_verified(self, digest: str) -> None:
        """The digest ("ALGORITHM:HEX") is right. May be called in a thread."""
        self._loop.call_soon_threadsafe(_settle, self.verified, digest)

    def _fail(self, error: Exception) -> None:
        for future in (self.fetched, self.verified, self.published):
            if not future.done():
                future.set_exception(error)


def streamed(
    places: Sequence[tuple[str, Open]],
    spec: ArtifactSpec,
    app: str,
    executor: Executor,
    *,
    share: bool = False,
) -> Bring:
    """Bring one stream of bytes from the first of `places` that has it: each its name and how it is opened.

    A place that fails, or has bytes of another digest, is left for the next one, until the digest was right.
    """

    async def bring(flight: Flight) -> Path:
        failures: list[Failure] = []
        known = Event()

        def verified(digest: str) -> None:
            known.set()
            flight.is_verified(digest)

        for index, (where, open_body) in enumerate(places):
            flight.where = where
            try:
                how = packing(spec, app)
                return await brought(flight, open_body, how, spec.checksum, verified, executor, share=share)
            except Failure as failure:
                if known.is_set() or failure.reason in _OURS:
                    raise
                failures.append(failure)
                if index + 1 < len(places):
                    flight.again(failure, f"is looked for at {places[index + 1][0]}")
        flight.where = places[0][0]
        raise most_hopeful(failures)

    return bring


def most_hopeful(failures: Sequence[Failure]) -> Failure:
    """The one of several that lets the agent try again soonest: Transient, OperatorNeeded, Permanent."""
    order = (Transient, OperatorNeeded, Permanent)
    return min(failures, key=lambda failure: order.index(type(failure)))


async def brought(
    flight: Flight,
    open_body: Open,
    how: Packing,
    checksum: Checksum,
    verified: Callable[[str], None],
    executor: Executor,
    *,
    share: bool = False,
) -> Path:
    """Bring one stream of bytes; `verified` is called in a thread. Raises Failure."""
    partial = Partial(flight.store.partial(checksum.hex))

    def is_verified(digest: str) -> None:
        partial.remove()  # before its bytes are written to disk for nothing
        verified(digest)

    def work() -> Worker:
        witness = Witness(flight.case, flight.store.new_temp()) if flight.case is not None else None
        return Worker(
            flight.store,
            flight.release,
            how,
            checksum,
            flight.limits,
            flight.where,
            is_verified,
            share=share,
            witness=witness,
        )

    with flight.store.using(checksum.hex):
        return await fetch(
            partial, open_body, work, lambda body, work: _carried(flight, body, work, executor), flight.again
        )


async def _carried(flight: Flight, body: Body, work: Work[Path], executor: Executor) -> Path:
    """Carry the one body of a flight through its work."""
    check_space(flight.store.root, None if body.size is None else body.size - body.start, flight.where)
    meter = Meter(body.size, flight.limits.body, flight.where, flight.tell)
    return await carry(body, meter, work, executor, lambda: flight.all_fetched(meter.done))


class Delivery:
    """One asker's view: `async with`, then await any of the three moments, in any order, or none.

    Each of the three raises what went wrong before it came: Transient (ArtifactUnavailable,
    ArtifactTimeout, ArtifactTruncated), OperatorNeeded (ArtifactDenied, CertificateRefused, FileNotAllowed,
    DiskFull, DiskReadOnly, PermissionDenied, StoreFailing) or Permanent (ArtifactNotFound,
    ArtifactTooLarge, RedirectRefused, ChecksumMismatch, ArchiveBroken, ArchiveRefused, ArchiveTooLarge,
    ArchiveUnsupported, ArchiveEmpty, ArtifactUnsigned, ArtifactSignatureRefused, ...). While it is open,
    `Store.collect` leaves the release alone.
    """

    def __init__(
        self,
        release: str,
        digest: str,
        store: Store,
        board: Callable[[], Flight],
        leave: Callable[[Flight], Awaitable[None]],
        progress: Progress | None,
        ready: Callable[[], bool],
    ) -> None:
        self.release = release
        self._digest = digest
        self._store = store
        self._board = board
        self._leave = leave
        self._progress = progress
        self._ready = ready
        self._flight: Flight | None = None
        self._entered = ExitStack()

    async def __aenter__(self) -> Self:
        with ExitStack() as entering:
            entering.enter_context(self._store.using(self.release))
            if not self._ready():
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

    @property
    def warning(self) -> str:
        """What people should know although it works, "" when there is nothing. Final once it is fetched."""
        return "" if self._flight is None else self._flight.warning

    async def fetched(self) -> int:
        """The whole body is here: its length in bytes; 0 when nothing had to be fetched."""
        return 0 if self._flight is None else await asyncio.shield(self._flight.fetched)

    async def verified(self) -> str:
        """The digest is right ("sha256:..."), and whoever must have signed has. Raises Permanent."""
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
