"""Sees from a thread of its own whether an event loop turns, and says where it is when it does not."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds a loop may be late
AGAIN = 10.0  # seconds between two words about one standstill
SLEPT = 1.0  # seconds this thread may be late itself, for the loop's lateness to be its own
FRAMES = 40


class Turning:
    """Belongs to the loop whose thread makes it. `beat` is its sign of life; `close` ends the thread.

    The thread wakes when a sign of life is overdue, and else about as often as they come. A machine that
    slept, or has no time for anybody, wakes it late, too: then the loop gets its time anew.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._loop = threading.get_ident()
        self._due = float("inf")
        self._wakes = float("inf")
        self._wake = threading.Event()
        self._closing = False
        try:
            threading.Thread(target=self._watch, name="turning", daemon=True).start()
        except RuntimeError as error:
            log.warning("nobody watches the event loop: %s", error)

    def beat(self, pause: float) -> None:
        """The loop turns, and will say so again in `pause` seconds."""
        self._due = time.monotonic() + pause + self._patience
        if self._due < self._wakes:
            self._wake.set()

    def close(self) -> None:
        """Watch no more."""
        self._closing = True
        self._wake.set()

    def _watch(self) -> None:
        while not self._closing:
            due = self._due
            if self._rested(due) or self._due != due or time.monotonic() < due:
                continue
            if time.monotonic() - due > SLEPT:
                self._rested(time.monotonic() + self._patience)
            if self._due == due:
                self._told(due)

    def _told(self, due: float) -> None:
        """Say that the loop stands still, and where, until it goes on."""
        since = due - self._patience
        while self._due == due and not self._closing:
            where = " <- ".join(_places(sys._current_frames().get(self._loop)))
            log.error("the event loop has stood still for %.0f s, at %s", time.monotonic() - since, where)
            self._rested(time.monotonic() + AGAIN)
        if not self._closing:
            log.warning("the event loop turns again, after %.0f s", time.monotonic() - since)

    def _rested(self, until: float) -> bool:
        """Rest until then; whether somebody woke it first."""
        self._wakes = until
        wait = None if until == float("inf") else max(0.0, until - time.monotonic())
        woken = self._wake.wait(wait)
        self._wake.clear()
        return woken


def _places(frame: FrameType | None) -> Iterator[str]:
    """Where a thread is, innermost first: names of files and functions, no values."""
    for _ in range(FRAMES):
        if frame is None:
            return
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
