"""Bytes kept as they came, to learn their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from threading import Event

from agent.artifact.archive.tree import write_all
from agent.artifact.pipeline import Stopped
from agent.artifact.store import Store


class BlobWork:
    """A `pipeline.Work`: writes all bytes into the store's blobs, named by their sha256."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hash = hashlib.sha256()
        self._temp = store.new_temp()
        self._fd = -1
        self._stop = Event()

    def feed(self, pieces: Sequence[bytes]) -> None:
        """See Work. Raises OSError, Stopped."""
        if self._fd < 0:
            self._fd = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        for piece in pieces:
            if self._stop.is_set():
                raise Stopped
            self._hash.update(piece)
            write_all(self._fd, piece)

    def finish(self, pieces: Sequence[bytes]) -> str:
        """The sha256 of all, as hex. Nothing is synced: a lost blob is fetched again."""
        self.feed(pieces)
        self._close()
        digest = self._hash.hexdigest()
        os.rename(self._temp, self._store.blob(digest))
        return digest

    def discard(self) -> None:
        """See Work."""
        self._close()
        self._temp.unlink(missing_ok=True)

    def stop(self) -> None:
        """See Work."""
        self._stop.set()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
