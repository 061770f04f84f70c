"""Blocking work of the Git client beside the event loop: stopped in order, or left behind in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from agent.kit.threads import settled

T = TypeVar("T")


async def stoppable(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread; on cancellation set `stop`, wait for the thread, then be cancelled.

    `work` looks at `stop` often and leaves early by any exception once it is set, having undone what
    it did. A result that comes after the cancellation is dropped: it must not need closing.
    """
    stop = threading.Event()
    return await settled(asyncio.get_running_loop().run_in_executor(None, work, stop), stop.set)


async def abandonable(work: Callable[[], T], dispose: Callable[[T], object]) -> T:
    """Run `work()` in a thread; on cancellation leave it behind, and `dispose` of its result when it comes.

    For work that may hang where nothing can stop it (a dead network file system). `dispose` runs on
    the event loop and must not block; errors of work left behind are dropped.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)

    def ended(done: asyncio.Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            dispose(done.result())

    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(ended)
        raise
