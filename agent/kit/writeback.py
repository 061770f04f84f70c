"""Writing that begins early: the disk is busy while the rest of a tree is still being made.

The kernel itself begins only when a good part of all memory waits to be written. A sync at the end then
waits for everything; here it waits for the rest. Asking takes as long as the disk has no room for more
requests, which is why it has a thread of its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from agent.kit.files import begin_writing, sync_filesystem_of

_MOST = 64  # files that wait; of more than that the disk will hear at the sync


class Writeback:
    """Used by one thread at a time. `close` it in any case."""

    def __init__(self) -> None:
        self._files: SimpleQueue[tuple[int, bool] | None] = SimpleQueue()  # and whether all is meant
        self._thread: Thread | None = None
        self._closed = False
        self._error: OSError | None = None

    def begin(self, fd: int) -> None:
        """Soon, let the disk begin with what was written to a file so far, which may be closed meanwhile.

        A disk that is too far behind is not asked, nor any when no thread or descriptor is to be had. Never
        waits, and tells no errors: the sync will.
        """
        self._put(fd, False)

    def begin_all(self, fd: int) -> None:
        """The same for all that was written so far to the file system of `fd`: of many small files.

        An error is told by `end`: the kernel tells it once, so that a later sync would not hear of it.
        """
        self._put(fd, True)

    def end(self) -> None:
        """Close; raises OSError when something could not be written to disk."""
        self.close()
        if self._error is not None:
            raise self._error

    def _put(self, fd: int, everything: bool) -> None:
        if self._files.qsize() >= _MOST:
            return
        with suppress(OSError, RuntimeError):
            if self._thread is None:
                thread = Thread(target=self._run, name="artifact-writeback", daemon=True)
                thread.start()
                self._thread = thread
            self._files.put((os.dup(fd), everything))

    def close(self) -> None:
        """Ask for nothing more, and end the thread. May be called again."""
        self._closed = True
        if self._thread is not None:
            self._files.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (item := self._files.get()) is not None:
            fd, everything = item
            try:
                if self._closed:
                    continue
                if everything:
                    sync_filesystem_of(fd)
                else:
                    begin_writing(fd)
            except OSError as error:
                self._error = error
            finally:
                os.close(fd)
