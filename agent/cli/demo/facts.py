"""What the agent tells at /events, kept in order, for whoever waits for something to happen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, NoReturn

import aiohttp

PAUSE = 0.1  # seconds before the stream is asked for again

Fact = dict[str, Any]
"""A fact as in /events, with `at` in seconds since the epoch."""


class Facts:
    """Listens to an agent. `run` is the listening; everything told so far is in `told`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.told: list[Fact] = []
        self._session = session
        self._url = url
        self._last = "-"  # an id of no life of the agent: everything it still has is told
        self._news = asyncio.Condition()

    async def run(self) -> NoReturn:
        """Listen for ever; comes back when the stream breaks off."""
        while True:
            try:
                await self._listen()
            except (aiohttp.ClientError, TimeoutError):
                pass  # the agent is away; when it is back, so are we
            await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        headers = {"Last-Event-ID": self._last}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60.0)
        async with self._session.get(self._url, headers=headers, timeout=timeout) as stream:
            stream.raise_for_status()
            async for line in stream.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    self._last = value
                elif name == "data":
                    await self._hear(json.loads(value))

    async def _hear(self, fact: Fact) -> None:
        fact["at"] = datetime.fromisoformat(fact["at"]).timestamp()
        async with self._news:
            self.told.append(fact)
            self._news.notify_all()

    async def follow(self, number: int = 0) -> AsyncIterator[Fact]:
        """All facts from the first on (or from that of a number), for ever."""
        while True:
            async with self._news:
                while len(self.told) <= number:
                    await self._news.wait()
            yield self.told[number]
            number += 1

    async def first(self, matches: Callable[[Fact], bool]) -> Fact:
        """The first fact that matches; waits for it."""
        async for fact in self.follow():
            if matches(fact):
                return fact
        raise AssertionError("facts never end")
