"""file:// (RFC 8089), below the directories that the agent's settings allow and nowhere else.

The file is first opened by name only (O_PATH, open(2)), which has no effect even on a device or a FIFO.
Where that descriptor really is, links followed, decides; then the very same file is opened for reading.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from agent.artifact.source import Body, Have, path_of, shown, split
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.kit.threads import settled

T = TypeVar("T")
_PIECE = 1024 * 1024


class FileSource:
    """Reads in the threads of `executor`."""

    schemes: tuple[str, ...] = ("file",)

    def __init__(self, roots: Sequence[Path], executor: Executor) -> None:
        self._roots = tuple(roots)
        self._executor = executor

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        unless: str = "",
        have: Have | None = None,  # noqa: ARG002 - always from the start: a file does not break off
    ) -> AsyncIterator[Body | None]:
        """See Source.open."""
        where = shown(url)
        opened: list[int] = []  # not a result, which a cancellation would lose
        try:
            await self._run(lambda: opened.append(self._open(url, where)))
            fd = opened[0]
            info = os.fstat(fd)
            validator = f"{info.st_ino}-{info.st_size}-{info.st_mtime_ns}-{info.st_ctime_ns}"
            if validator == unless:
                yield None
                return
            yield Body(info.st_size, validator, lambda: self._run(lambda: _read(fd, where)))
        finally:
            for fd in opened:
                os.close(fd)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    async def _run(self, work: Callable[[], T]) -> T:
        # Waited for even when cancelled: the descriptor must not be closed, or lost, under the thread.
        return await settled(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def _open(self, url: str, where: str) -> int:
        parts = split(url)
        if parts.netloc not in ("", "localhost") or parts.query or not parts.path.startswith("/"):
            raise Permanent("UrlInvalid", "write file:///absolute/path", where=where)
        try:
            named = os.open(path_of(url), os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _told(error, where) from None
        try:
            self._admit(named, where)
            return os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _told(error, where) from None
        finally:
            os.close(named)

    def _admit(self, fd: int, where: str) -> None:
        real = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if not any(real.is_relative_to(os.path.realpath(root)) for root in self._roots):
            raise OperatorNeeded(
                "FileNotAllowed",
                "the file is not below a directory that file:// artifacts may come from",
                where=where,
                remedy="allow its directory with --file-root",
            )
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Permanent("ArtifactRefused", "not a regular file", where=where)


def _read(fd: int, where: str) -> bytes:
    try:
        return os.read(fd, _PIECE)
    except OSError as error:
        raise _told(error, where) from None


def _told(error: OSError | ValueError, where: str) -> Failure:
    if isinstance(error, ValueError):  # a NUL in the path
        return Permanent("UrlInvalid", "not a path", where=where)
    text = error.strerror or str(error)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Permanent("ArtifactNotFound", text, where=where)
    if isinstance(error, PermissionError):
        return OperatorNeeded("ArtifactDenied", text, where=where, remedy="let the agent's user read it")
    return Transient("ArtifactUnavailable", text, where=where)
