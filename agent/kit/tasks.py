"""Owned tasks: the only place where a task may be made outside an open TaskGroup.

`Owned` is for objects that live longer than one function and start work of their own (a lane, an
inbox). It is an asynchronous context manager; leaving it cancels what still runs, waits for it, and
names what does not end. Its first unexpected error is handed to `on_error` (or logged).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Self, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

STUCK_REPORT = 5.0  # seconds between two reports of tasks that do not end


class Owned:
    """A set of tasks with one owner and one end."""

    def __init__(self, name: str, on_error: Callable[[BaseException], None] | None = None) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def closing(self) -> bool:
        """Whether `aclose` has begun: nothing can be started any more."""
        return self._closing

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task. After `aclose` has begun the coroutine is closed and RuntimeError raised.

        It begins with an empty context (contextvars): what is bound where it happens to be started, such as
        the ids of a run in the log, ends there, and the task may go on for long after.
        """
        if self._closing:
            coro.close()
            raise RuntimeError(f"{self.name} is closing")
        task = asyncio.create_task(coro, name=f"{self.name}/{name}", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self._on_error is not None:
            self._on_error(error)
        else:
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def aclose(self) -> None:
        """Cancel every task and wait until each has ended. Says every few seconds who has not."""
        self._closing = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        while tasks:
            done, tasks = await asyncio.wait(tasks, timeout=STUCK_REPORT)
            if tasks and not done:
                log.warning("%s waits for: %s", self.name, ", ".join(t.get_name() for t in tasks))


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended, whatever it raises; the caller's own cancellation passes."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def uninterrupted(work: Coroutine[Any, Any, T], *, name: str) -> T:
    """Run `work` to its end even when the caller is cancelled meanwhile; the cancellation passes then."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.warning("%s failed while its caller was cancelled: %s", name, failure)
    raise cancelled


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T], *, name: str) -> T | None:
    """The result of `work`; None when `event` came first, then `work` is cancelled and waited for."""
    task = asyncio.create_task(work, name=name)
    waiter = asyncio.create_task(event.wait(), name=f"{name}: unless")
    try:
        await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() and not event.is_set() else None
    finally:
        waiter.cancel()
        await stop(task)
