"""The beginning of an artifact, kept on disk while it comes, so that not even a restart loses it.

    PARTIAL/bytes      what has come so far, as it came
    PARTIAL/validator  the length of the whole, a blank, its strong ETag

Nothing is synced: after a power cut the bytes may be wrong. What is put together from parts is held against
its digest like everything else, and when that is wrong, all of it is fetched anew.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Generic, TypeVar

from agent.artifact.archive.tree import write_all
from agent.artifact.limits import MIB
from agent.artifact.pipeline import Work
from agent.artifact.resume import CHANGED
from agent.artifact.source import Body, Have
from agent.domain.errors import Failure, Permanent
from agent.kit.files import remove_tree

T = TypeVar("T")
_WORTH = 16 * MIB  # what is shorter comes again in a moment
_SOON = 10.0  # seconds; what will be whole before is not kept: writing all of it twice would slow it down
_PIECE = MIB


class Partial:
    """One beginning, in the directory `path`. Blocks; one call at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    @property
    def begun(self) -> bool:
        """Whether there is anything to look at: mostly not, and a thread costs more than this question."""
        return os.path.lexists(self._path)

    def have(self) -> Have | None:
        """What is here; None when it is nothing of use."""
        try:
            total, _, validator = (self._path / "validator").read_text().partition(" ")
            size = min(
                (self._path / "bytes").stat().st_size, int(total) - 1
            )  # at least one byte is asked for
        except (OSError, ValueError):
            return None
        return Have(size, int(total), validator) if size > 0 and validator else None

    def begin(self, body: Body) -> None:
        """Keep what comes from now on, behind `body.start` bytes."""
        try:
            if not body.start:
                remove_tree(self._path)
                self._path.mkdir(mode=0o700)
                (self._path / "validator").write_text(f"{body.size} {body.validator}")
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path / "bytes", flags, 0o600)
            os.ftruncate(self._fd, body.start)
        except OSError:
            self.remove()

    def read(self, position: int, most: int) -> bytes:
        """Bytes that are here; none when they cannot be read."""
        try:
            return os.pread(self._fd, most, position)
        except OSError:
            return b""

    def write(self, pieces: Sequence[bytes]) -> None:
        """More of it; what cannot be written is no matter."""
        if self._fd < 0:
            return
        try:
            os.lseek(self._fd, 0, os.SEEK_END)
            for piece in pieces:
                write_all(self._fd, piece)
        except OSError:
            self.remove()

    def close(self) -> None:
        """Give the descriptor back; the bytes stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Forget all of it."""
        self.close()
        try:
            remove_tree(self._path)
        except OSError:
            return  # the next `collect` tries again


class Keeping(Generic[T]):
    """A `pipeline.Work` around another, whose bytes it keeps. `begin` first."""

    def __init__(self, inner: Work[T], partial: Partial) -> None:
        self.partial = partial
        self._inner = inner
        self._here = 0  # bytes that are kept already
        self._position = 0
        self._keeps = False
        self._size = 0
        self._began = 0.0

    async def begin(self, body: Body) -> Body:
        """The same body, with what is here in front of it."""
        self._keeps = body.resumable and (body.size or 0) >= _WORTH
        self._here = body.start
        self._size = body.size or 0
        self._began = time.monotonic()
        if self._keeps or body.start:
            await asyncio.to_thread(self.partial.begin, body)
        if not body.start:
            return body
        rest, position = body.read, 0

        async def read() -> bytes:
            nonlocal position
            if position >= self._here:
                return await rest()
            most = min(_PIECE, self._here - position)
            piece = await asyncio.to_thread(self.partial.read, position, most)
            position = position + len(piece) if piece else self._here  # shorter than it was: the digest tells
            return piece or await rest()

        return Body(body.size, body.validator, read, body.start, body.resumable)

    def feed(self, pieces: Sequence[bytes]) -> None:
        """See Work."""
        self._keep(pieces)
        self._inner.feed(pieces)

    def finish(self, pieces: Sequence[bytes]) -> T:
        """See Work."""
        result = self._inner.finish(pieces)
        self.partial.close()
        return result

    def discard(self) -> None:
        """See Work. What is kept stays."""
        self.partial.close()
        self._inner.discard()

    def stop(self) -> None:
        """See Work."""
        self._inner.stop()

    def _keep(self, pieces: Sequence[bytes]) -> None:
        fresh = []
        for piece in pieces:
            known = min(max(self._here - self._position, 0), len(piece))
            self._position += len(piece)
            if self._keeps and known < len(piece):
                fresh.append(piece[known:] if known else piece)
        if fresh:
            self.partial.write(fresh)
            self._look_ahead(self._position - self._here)

    def _look_ahead(self, came: int) -> None:
        """Stop keeping what comes so fast that it will be whole soon."""
        left = (self._size - self._position) * (time.monotonic() - self._began) / came
        if came >= _WORTH and left < _SOON:
            self._keeps = False
            self.partial.remove()


Open = Callable[[Have | None], AbstractAsyncContextManager[Body | None]]
"""See `Source.open`."""


async def fetch(
    partial: Partial,
    open_body: Open,
    make_work: Callable[[], Work[T]],
    carrying: Callable[[Body, Work[T]], Awaitable[T]],
    again: Callable[[Failure], None],
) -> T:
    """Carry one body through its work, going on where an earlier attempt ended, as far as that is safe.

    When the parts turn out not to belong together, `again` is told why, and all is fetched anew, once.
    Raises Failure.
    """
    try:
        return await _attempt(partial, open_body, make_work, carrying)
    except _MixedUp as problem:
        again(problem.failure)
    await asyncio.to_thread(partial.remove)
    try:
        return await _attempt(partial, open_body, make_work, carrying)
    except _MixedUp as problem:
        raise problem.failure from None


class _MixedUp(Exception):
    """Parts of a download may not belong together. `failure` is what gave it away."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


async def _attempt(
    partial: Partial,
    open_body: Open,
    make_work: Callable[[], Work[T]],
    carrying: Callable[[Body, Work[T]], Awaitable[T]],
) -> T:
    have = await asyncio.to_thread(partial.have) if partial.begun else None
    async with open_body(have) as body:
        assert body is not None  # None is only given to those who ask for a change
        work = Keeping(make_work(), partial)
        try:
            return await carrying(await work.begin(body), work)
        except Failure as failure:
            permanent = isinstance(failure, Permanent)
            if failure.reason == CHANGED or (permanent and (body.start or body.mended)):
                raise _MixedUp(failure) from None
            if permanent:
                partial.remove()
            raise
        finally:
            partial.close()
