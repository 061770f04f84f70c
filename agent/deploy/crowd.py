"""Few at a time: when everything ended at once, everything would begin at once.

Fifty programs that start together take as long as one group after the other, because it is the processor
they wait for; but meanwhile nobody else gets any of it, neither the first of them nor the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

WIDTH = max(4, 2 * (os.cpu_count() or 1))
PATIENCE = 1.0  # seconds after which a turn is over, whether the program has come up or not


class Crowd:
    """Gives turns to programs that are started again."""

    def __init__(self, width: int = WIDTH, patience: float = PATIENCE) -> None:
        self._free = asyncio.Semaphore(width)
        self._patience = patience

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the end of the block, or of `patience`."""
        await self._free.acquire()
        over = asyncio.get_running_loop().call_later(self._patience, self._free.release)
        try:
            yield
        finally:
            if over.when() > asyncio.get_running_loop().time():
                over.cancel()
                self._free.release()
