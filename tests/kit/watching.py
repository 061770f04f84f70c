"""Somebody who asks for /status all the time, while something fails.

async with Watch(box, "no name server") as watch:
    ...
print(watch.told)                       # no name server: /status took 2 ms mostly, 9 ms at most, of 41
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.kit.box import Box

DEADLINE = 5.0  # seconds for an answer: it should take 1, on a machine that is not busy
PAUSE = 0.1


class Watch:
    """Keeps how long the answers took, and each of them. `gaps`: at times there may be no agent at all."""

    def __init__(self, box: Box, what: str, *, gaps: bool = False) -> None:
        self.what = what
        self.seconds: list[float] = []
        self.versions: set[str] = set()  # that were told as serving
        self._box, self._gaps = box, gaps
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what went wrong while asking."""
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        print(self.told)
        if error is None and not isinstance(ended, asyncio.CancelledError):
            raise ended or AssertionError("it ended")

    @property
    def told(self) -> str:
        """For the report."""
        if not self.seconds:
            return f"{self.what}: /status was never asked"
        usual, most = median(self.seconds) * 1000, max(self.seconds) * 1000
        return (
            f"{self.what}: /status took {usual:.0f} ms mostly, {most:.0f} ms at most, of {len(self.seconds)}"
        )

    async def _ask(self) -> None:
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                began = time.monotonic()
                try:
                    async with session.get(self._box.url("/status")) as answer:
                        self._hear(await answer.json())
                    self.seconds.append(time.monotonic() - began)
                except aiohttp.ClientError:
                    if not self._gaps:
                        raise
                await asyncio.sleep(PAUSE)

    def _hear(self, status: dict[str, Any]) -> None:
        for app in status["apps"].values():
            if app.get("current"):
                self.versions.add(app["current"]["version"])


def condition(told: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of /status, or of an app in it; without one, one that has no status."""
    return next((c for c in told.get("conditions", []) if c["type"] == kind), {"status": None, "reason": ""})
