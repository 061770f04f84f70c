"""A stream that never keeps its writer waiting: who reads it, or the disk it lies on, may do so for hours."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from queue import SimpleQueue

MOST = 1 << 20  # characters that wait; of what comes then only the number is told
LAST_WORDS = 1.0  # seconds at the end of the process for what waits


class Outflow:
    """Text for a descriptor, written by a thread of its own, which begins with the first of it.

    Used by one thread at a time, as a handler of logging is.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._given = self._written = 0  # characters; the second is the thread's own
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Have it written. Never waits where there are threads, and tells no errors."""
        if not self._begun():
            self._put(text)
        elif self._given - self._written > MOST:
            self._dropped += 1
        else:
            if self._dropped:
                text = f"{self._dropped} lines dropped: nobody took them\n{text}"
                self._dropped = 0
            self._given += len(text)
            self._queue.put(text)

    def flush(self) -> None:
        """It is written as soon as it can be."""

    def close(self) -> None:
        """Write what waits, as far as there is room for it soon."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(LAST_WORDS)

    def _begun(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                atexit.register(self.close)
        return self._thread is not None

    def _run(self) -> None:
        while (text := self._queue.get()) is not None:
            self._put(text)
            self._written += len(text)

    def _put(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        with suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]
