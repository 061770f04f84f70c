"""The clients of `benchmarks.swarm_client` as a child process: counts so far, and waiting for them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

DEADLINE = 30.0
LINE_MAX = 1 << 20


@dataclass(slots=True)
class Swarm:
    """What the clients told last. `new` and `kept` are outcomes, see `swarm_client`."""

    new: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seen: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def total(self) -> int:
        """New connections."""
        return self.new.total()

    @property
    def rate(self) -> float:
        """New connections a second, over all."""
        return self.total / max(self.seconds, 1e-9)

    @property
    def requests(self) -> int:
        """Requests on kept connections."""
        return self.kept.total() - self.kept["refused"]

    def lost(self) -> dict[str, int]:
        """New connections that got no answer with status 200, by what became of them."""
        return {name: count for name, count in self.new.items() if name.startswith("lost ")}

    def kept_lost(self) -> dict[str, int]:
        """Requests on kept connections that were not answered with status 200."""
        return {name: count for name, count in self.kept.items() if name.startswith("lost ")}

    async def until(self, condition: Callable[[Swarm], bool]) -> None:
        """Wait for counts. Raises TimeoutError with them."""
        try:
            async with asyncio.timeout(DEADLINE), self._news:
                await self._news.wait_for(lambda: condition(self))
        except TimeoutError:
            told = f"the last of {self.new!r}, {self.kept!r}"
            raise TimeoutError(f"the clients did not see what they should: {told}") from None

    async def answered(self, version: str, count: int) -> None:
        """Wait until a version has answered this many new connections."""
        await self.until(lambda swarm: swarm.new[version] >= count)

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            told = json.loads(line)
            async with self._news:
                self.new, self.kept = Counter(told["new"]), Counter(told["kept"])
                self.slowest, self.seen = told["slowest"], told["seen"]
                self.seconds = told["seconds"]
                self._news.notify_all()


@asynccontextmanager
async def swarm(host: str, port: int, rate: float, kept: int = 0) -> AsyncIterator[Swarm]:
    """Clients until the block is left; then the counts are final."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.swarm_client", host, str(port), str(rate), str(kept),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_MAX,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    running = Swarm()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(running._listen(process.stdout))
        try:
            yield running
            process.stdin.close()
            async with asyncio.timeout(DEADLINE):
                await asyncio.shield(listening)
        finally:
            if process.returncode is None:
                process.kill() if not listening.done() else None
            await process.wait()
