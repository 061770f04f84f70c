"""Deploys without end: `python -m tests.endurance.soak [--count N] [--seed N]`.

Good, bad and hostile commits one after the other, under a load of new connections of which none may be
lost. After each the last good version serves and the pusher was told what became of the commit. Now and
then, while nothing is under way, it is measured what the box costs; in the end nothing may have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from agent.cli.client import Agent
from agent.deploy.journal_schema import KEEP_SYNCS
from tests.crash.stage import RESTING
from tests.endurance import costs
from tests.endurance.deeds import Deed, Deeds, text_of
from tests.kit.box import Box, Load
from tests.kit.world import World

EVERY = 10  # deeds between two samples
SLOW = 4.0  # seconds a deed may take before it is told what the agent did meanwhile
KEPT = 20  # artifacts kept where the agent fetches them


class Soak:
    """One box, and what it was told to do."""

    def __init__(self, box: Box, dice: random.Random) -> None:
        self.box = box
        (box.directory / "srv").mkdir()
        box.settings |= {
            "--place-root": str(box.directory / "srv"),
            "--app-log-size": "64K",
            "--log-level": "info",
        }
        self.world = World(box)
        self.deeds = Deeds(self.world, dice)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.samples: list[costs.Sample] = []
        self.slowest = (0.0, "")
        self.serving = ""  # the version that should serve

    async def begin(self) -> None:
        """A first version."""
        first = self.deeds.good()
        self.serving = self._version(first)
        await self.box.commit(first.state)
        await self.box.start()
        await self.box.proven(self.serving)

    async def look(self, count: int) -> None:
        """So many looks at the state, at which nothing is new: the journal keeps a number of those, too."""
        agent = Agent(self.box.data / "agent.sock")
        for _ in range(count):
            await asyncio.to_thread(agent.post, "/sync", {}, wait=True)

    async def do(self, deed: Deed) -> None:
        """Push it, hear what became of it, and look."""
        began, said = time.monotonic(), len(self.box.output)
        commit = await self.box.commit(text_of(deed.state), deed.tree)
        told = asyncio.ensure_future(self.box.webhook(commit, wait=True))
        if deed.later is not None:
            await deed.later()
        status, answer = await told
        wanted = [(202, "probation")] if deed.good or deed.later else [(409, "failed")]
        if deed.good:  # a look for another reason may have found the commit before its push was told
            wanted.append((200, "unchanged"))
        if (status, answer.get("result")) not in wanted:
            self.wrong.append(f"{deed.name}: {status} {answer}")
        if deed.good:
            self.serving = self._version(deed)
            await self.box.proven(self.serving)
        elif deed.later is not None:
            await self.box.app_is(state="degraded", current__version=self.serving, run=None)
        if await self.box.get() != (200, f"{self.serving}\n"):
            self.wrong.append(f"{deed.name}: not {self.serving} but {await self.box.get()} serves")
        if deed.tree:
            await self.box.repository.commit(dict.fromkeys(deed.tree))
        self.done[deed.name.partition(":")[0]] += 1
        seconds = time.monotonic() - began
        self.slowest = max(self.slowest, (seconds, deed.name))
        if seconds > SLOW:
            print("\n".join([f"{deed.name} took {seconds:.1f} s:", *self.box.output[said:]]), flush=True)

    async def rest(self) -> None:
        """Wait until nothing is under way, then measure."""
        await self.box.until(self._rests)
        assert self.box.process is not None
        self.samples.append(await asyncio.to_thread(costs.sample, self.box.process.pid, self.box.data))
        files = sorted(self.box.artifacts.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-KEPT]:
            path.unlink()

    async def _rests(self) -> bool:
        status = await self.box.status()
        busy = [app for app in status["apps"].values() if app.get("run") or app["state"] not in RESTING]
        return not busy and not status["source"]["running"] and len(self.world.puppets()) == 1

    @staticmethod
    def _version(deed: Deed) -> str:
        assert isinstance(deed.state, dict)
        return str(deed.state["apps"]["web"]["version"])


async def soak(
    directory: Path, count: int, seed: int, every: int = EVERY, minutes: float = 60.0
) -> AsyncIterator[Soak]:
    """Do `count` deeds under load, or as many as there is time for; gives itself after each sample."""
    end = time.monotonic() + 60 * minutes
    async with Box(directory) as box:
        one = Soak(box, random.Random(seed))
        await one.begin()
        await one.look(KEEP_SYNCS * 3 // 5 if count > KEPT else 0)
        async with Load(box.port, 2, 0.01) as load:
            for number in range(1, count + 1):
                await one.do(one.deeds.next())
                if load.failures:
                    one.wrong.append(f"lost requests before deed {number}: {load.failures}")
                    load.failures.clear()
                if number % every == 0:
                    await one.rest()
                    yield one
                    if time.monotonic() > end:
                        break
        one.done["requests"] = load.total


async def _all(count: int, seed: int, minutes: float) -> int:
    directory = Path(tempfile.mkdtemp(prefix="emptybox-soak-"))
    began, shown = time.monotonic(), 0
    try:
        async for one in soak(directory, count, seed, minutes=minutes):
            last = one.samples[-1]
            print(
                f"{sum(one.done.values())} deploys, {time.monotonic() - began:.0f} s,"
                f" agent {last['agent PSS MiB']} MiB, journal {last['journal KiB']:.0f} KiB",
                flush=True,
            )
            print("".join(f"    {wrong}\n" for wrong in one.wrong[shown:]), end="", flush=True)
            shown = len(one.wrong)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    medians = costs.quarters(one.samples)
    growing = costs.grown(medians)
    print(costs.told(medians))
    print(", ".join(f"{number} {name}" for name, number in one.done.most_common()))
    print(f"slowest: {one.slowest[1]}, {one.slowest[0]:.1f} s")
    print(f"wrong: {len(one.wrong)}; grown: {growing or 'nothing'}")
    return 1 if one.wrong or growing else 0


def main() -> int:
    """Soak; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.soak")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--minutes", type=float, default=60.0, help="no more deploys after this time")
    options = parser.parse_args()
    return asyncio.run(_all(options.count, options.seed, options.minutes))


if __name__ == "__main__":
    sys.exit(main())
