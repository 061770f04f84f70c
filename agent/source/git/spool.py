"""Bytes on their way in: in memory while they are few, in an unnamed temporary file from then on."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import IO, TypeAlias

from agent.domain.errors import OperatorNeeded
from agent.source.git.threads import stoppable

MEMORY_MAX = 8 << 20
_BLOCK = 1 << 20  # written at once, by a thread

Buffer: TypeAlias = bytes | mmap.mmap


class TooLarge(Exception):
    """More came than was allowed."""


class Spool:
    """Collects at most `limit` bytes; a file it needs is made in `directory` (None: the usual place)."""

    def __init__(self, limit: int, directory: Path | None = None) -> None:
        self.size = 0
        self._limit = limit
        self._directory = directory
        self._pending = bytearray()
        self._file: IO[bytes] | None = None

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises TooLarge, OperatorNeeded("DiskFull")."""
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")
        self._pending += data
        if len(self._pending) >= (MEMORY_MAX if self._file is None else _BLOCK):
            await stoppable(lambda _: self._flush())

    def _flush(self) -> None:
        try:
            self._write_out()
        except OSError as error:
            raise OperatorNeeded(
                "DiskFull",
                f"what is fetched cannot be kept: {error.strerror or type(error).__name__}",
                where=str(self._directory or tempfile.gettempdir()),
                remedy="free some space",
            ) from error

    def _write_out(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="emptybox-", buffering=0)  # noqa: SIM115
        view = memoryview(self._pending)
        while view:
            view = view[self._file.write(view) :]
        view.release()
        self._pending.clear()

    def finish(self) -> Buffer:
        """All of it; the caller closes a mapping. Blocks when there is a file. Raises as `write`."""
        if self._file is None:
            data = bytes(self._pending)
            self._pending.clear()
            return data
        self._flush()
        try:
            return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        finally:
            self.close()

    def close(self) -> None:
        """Drop what was collected; idempotent."""
        self._pending = bytearray()
        file, self._file = self._file, None
        if file is not None:
            file.close()
