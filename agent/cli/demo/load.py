"""The load of the demo: clients in a process of their own (`load_client`), and what they have seen so far."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.cli.demo import load_client
from agent.kit.tasks import Owned, stop

LANES = 5
PER_SECOND = 500
LINE_MAX = 1 << 20
END_DEADLINE = 20.0  # seconds for the clients' last requests


@dataclass(slots=True)
class Load:
    """What became of the requests. Times are seconds since the epoch, durations seconds."""

    answered: dict[str, int] = field(default_factory=dict)  # by version
    page: int = 0
    page_last: float = 0.0  # when the newest page came
    lost: dict[str, int] = field(default_factory=dict)  # by reason
    slowest: float = 0.0
    seconds: float = 0.0
    changes: list[tuple[float, str]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.answered.values()) + self.page + sum(self.lost.values())

    async def first(self, version: str, after: float) -> float:
        """When the first answer of a version after a time came; waits for it."""
        async with self._news:
            while True:
                for at, answer in self.changes:
                    if answer == version and at >= after:
                        return at
                await self._news.wait()

    @property
    def since(self) -> float:
        """Since when the version that answers now is the only one that does."""
        return self.changes[-1][0] if self.changes else 0.0

    async def more(self, version: str, count: int) -> None:
        """Wait until a version has answered `count` more requests."""
        wanted = self.answered.get(version, 0) + count
        async with self._news:
            await self._news.wait_for(lambda: self.answered.get(version, 0) >= wanted)

    async def hear(self, line: dict[str, Any]) -> None:
        """Take in what the clients tell."""
        self.answered, self.page, self.lost = line["answered"], line["page"], line["lost"]
        self.page_last = line["page_last"]
        self.slowest, self.seconds = line["slowest"], line["seconds"]
        self.changes += [(at, version) for at, version in line["changes"]]
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def load(host: str, port: int) -> AsyncIterator[Load]:
    """Ask a port steadily, from the moment somebody listens until left; then the counts are final."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-E", load_client.__file__, host, str(port), str(LANES), str(PER_SECOND),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        limit=LINE_MAX,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    seen = Load()
    async with Owned("load") as tasks:
        reader = tasks.start(_read(process.stdout, seen), name="reader")
        try:
            yield seen
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(END_DEADLINE):
                    await reader
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await stop(reader)


async def _read(stream: asyncio.StreamReader, seen: Load) -> None:
    async for line in stream:
        await seen.hear(json.loads(line))
