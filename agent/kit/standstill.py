"""Deadlines that count no time in which what everybody needs stood still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

AGAIN = 1.0  # seconds, at least, until a deadline that has come in a standstill is looked at again

Timeout = Callable[[float], AbstractAsyncContextManager[asyncio.Timeout]]


class Standstill:
    """How long it has stood still so far: what `begins` and `ends` tell.

    Whoever waits for work in a thread gains nothing by giving up while the disk does not answer: the thread
    goes on all the same once it does, and would do what nobody expects any more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._before = 0.0

    @property
    def now(self) -> bool:
        """Whether it stands still."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """How long it has, all together."""
        return self._before + (0.0 if self._since is None else self._clock() - self._since)

    def begins(self, ago: float) -> None:
        """It stands still, since so many seconds."""
        self._since = self._clock() - ago

    def ends(self) -> None:
        """It goes on."""
        self._before, self._since = self.seconds, None

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """As asyncio.timeout, but for the time it stands still."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds - self.seconds
        timer: asyncio.TimerHandle
        async with asyncio.timeout(None) as scope:

            def look() -> None:
                nonlocal timer
                left = until + self.seconds - loop.time()
                if self.now or left > 0:
                    timer = loop.call_later(max(left, AGAIN if self.now else 0.0), look)
                else:
                    scope.reschedule(loop.time())

            timer = loop.call_later(seconds, look)
            try:
                yield scope
            finally:
                timer.cancel()
