"""A stage of work that runs beside the one before it: in a thread of its own, in order, a bounded way off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Hands items to `work` in a thread, in order. `close` it in any case. Used by one thread at a time.

    What `work` raises is raised by the next `put` or `flush`, and by every one after it; what waited then is
    dropped.

    Args:
        work: takes an item; its steps are bounded, so that nobody waits for ever.
        most: how much may wait, in the unit of `put`'s size; one item may always.
    """

    def __init__(self, name: str, work: Callable[[T], None], most: int) -> None:
        self._work = work
        self._most = most
        self._items: deque[tuple[T, int]] = deque()
        self._waiting = 0
        self._busy = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T, size: int) -> None:
        """Hand an item over, as soon as there is room for it. Raises what `work` raised."""
        with self._changed:
            while self._items and self._waiting + size > self._most and self._error is None:
                self._changed.wait()
            self._raise()
            self._items.append((item, size))
            self._waiting += size
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is done. Raises what `work` raised."""
        with self._changed:
            while (self._items or self._busy) and self._error is None:
                self._changed.wait()
            self._raise()

    def close(self) -> None:
        """Drop what waits, and end the thread once it is done with its item. May be called again."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._items and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                item, size = self._items.popleft()
                self._waiting -= size
                self._busy = True
                self._changed.notify_all()
            try:
                self._work(item)
            except BaseException as error:
                with self._changed:
                    self._error, self._closed = error, True
                    self._items.clear()
                    self._busy = False
                    self._changed.notify_all()
                return
            del item
