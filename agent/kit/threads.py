"""Work in threads, which cannot be cancelled, awaited by tasks, which can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def settled(work: asyncio.Future[T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """The result of `work`, which has ended whenever this ends.

    A cancellation of the caller is kept until the work has ended, and then passed on; `on_cancel` is called
    first, to ask the work to end early. So whoever comes after may take away what the work was using.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            if cancelled is None:
                on_cancel()
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # seen, so that nobody reports it as never retrieved
        raise cancelled
    return work.result()
