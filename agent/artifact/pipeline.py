"""The way of bytes from an open stream on the event loop to a `Work` in a thread.

    source ─► read ─► batch ─► Work, in a thread

Bytes are handed over in batches. The first one is the whole artifact when that is small, so that it costs
one change of threads in all; later ones are what came in while the thread was busy, bounded, so that a slow
disk slows the sender down instead of filling memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agent.artifact.failures import disk_full, storage_failure
from agent.artifact.limits import MIB
from agent.artifact.source import Body
from agent.domain.errors import Permanent, Transient
from agent.kit.threads import settled

log = logging.getLogger(__name__)
Result = TypeVar("Result", covariant=True)
T = TypeVar("T")
Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0: not known)

_SMALL = 1 * MIB  # up to here an artifact is handed over whole
_MOST = 2 * MIB  # waiting for the thread; as much again may be in its hands
_PROGRESS_INTERVAL = 0.05  # seconds


class Stopped(Exception):
    """What a Work raises when it was asked to end early; nobody ever sees it."""


class Work(Protocol[Result]):
    """What is done with the bytes. One call at a time, in a thread; `stop` from anywhere."""

    def feed(self, pieces: Sequence[bytes]) -> None:
        """More bytes, in order."""

    def finish(self, pieces: Sequence[bytes]) -> Result:
        """The last bytes, and the conclusion."""

    def discard(self) -> None:
        """Remove every trace. Called in a thread unless `finish` returned."""

    def stop(self) -> None:
        """End the running call soon, with Stopped; its result is not wanted any more."""


class Meter:
    """Counts bytes, holds them against a limit, and tells how far it is, not too often."""

    def __init__(self, total: int | None, limit: int, where: str, tell: Progress | None = None) -> None:
        self.done = 0
        self._total = total
        self._limit = limit
        self._where = where
        self._tell = tell
        self._told = 0.0
        self._check(total or 0)

    def add(self, count: int) -> None:
        """So many more bytes. Raises Permanent (ArtifactTooLarge)."""
        self.done += count
        self._check(self.done)
        now = time.monotonic()
        if now - self._told >= _PROGRESS_INTERVAL:
            self._told = now
            if self._tell is not None:
                self._tell(self.done, self._total or 0)

    def end(self) -> None:
        """That was all. Raises Transient (ArtifactTruncated) when more was announced."""
        if self._total is not None and self.done != self._total:
            message = f"{self._total} bytes were announced, {self.done} came"
            raise Transient("ArtifactTruncated", message, where=self._where)
        if self._tell is not None:
            self._tell(self.done, self.done)

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"{size} bytes, where {self._limit} are allowed"
            raise Permanent("ArtifactTooLarge", message, where=self._where)


async def carry(
    body: Body,
    meter: Meter,
    work: Work[T],
    executor: Executor,
    fetched: Callable[[], None] = lambda: None,
    *,
    beside: int = 1,
) -> T:
    """Read `body` to its end through `work`; returns what its `finish` does, and calls `fetched` on the way.

    However this ends, no thread is at work afterwards, and unless it returns, `work` is discarded. `beside`
    is how many of its kind share the memory of one.
    """
    loop = asyncio.get_running_loop()
    job: asyncio.Future[Any] | None = None
    batch: list[bytes] = []
    waiting = 0
    whole = False
    try:
        while piece := await body.read():
            batch.append(piece)
            waiting += len(piece)
            meter.add(len(piece))
            if meter.done <= _SMALL:
                continue
            if job is not None and (job.done() or waiting >= _MOST // beside):
                await settled(job, on_cancel=work.stop)
                job = None
            if job is None:
                job = loop.run_in_executor(executor, work.feed, batch)
                batch, waiting = [], 0
        meter.end()
        fetched()
        if job is not None:
            await settled(job, on_cancel=work.stop)
        last: asyncio.Future[T] = loop.run_in_executor(executor, work.finish, batch)
        job = last
        result = await settled(last, on_cancel=work.stop)
        whole = True
        return result
    finally:
        if not whole:
            await _abandon(job, work, executor)


async def _abandon(job: asyncio.Future[Any] | None, work: Work[Any], executor: Executor) -> None:
    work.stop()
    try:
        if job is not None:
            await settled(job)
    except Exception:
        pass  # what made us give up is told instead
    finally:
        try:
            await settled(asyncio.get_running_loop().run_in_executor(executor, work.discard))
        except OSError as error:
            log.warning("temporary files stay until the next start: %s", error)


def check_space(root: Path, size: int | None, where: str) -> None:
    """Raise OperatorNeeded (DiskFull) when `size` bytes cannot fit. What they unpack to is not known yet."""
    space = os.statvfs(root)
    if size is not None and size > space.f_bavail * space.f_frsize:
        raise disk_full(root, where, needed=size)


@contextmanager
def telling(root: Path, where: str, deadline: float) -> Iterator[None]:
    """Tell the errors of a disk and of a deadline as failures."""
    try:
        yield
    except TimeoutError:
        raise Transient("ArtifactTimeout", f"not here after {deadline:g} s", where=where) from None
    except OSError as error:
        raise storage_failure(error, root, where) from error
