"""kill -9 at random times while pushes go on: `python -m tests.endurance.kills [--count N] [--trees N]`.

First the agent alone dies, under a steady load of new connections of which none may be lost; then keeper,
agent and programs at once. After each death the pushes rest, and all is looked at: what was wanted last is
reached and serves, its files are what was unpacked, history is true, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.crash.stage import DEADLINE, Stage
from tests.crash.upgrades import Upgrade
from tests.kit.clients import Load
from tests.kit.proc import agent_below

# The keeper as it is, but that one whose agent died often does not wait any longer the next time.
PATIENT = (
    "import sys; from agent.keeper import loop; loop.BACKOFF = (0.05, 0.05);"
    " from agent.__main__ import main; sys.exit(main())"
)
BETWEEN_PUSHES = (0.1, 1.0)  # seconds
UNTIL_DEATH = (0.0, 1.5)
UNTIL_NEXT_DEATH = (0.0, 0.8)
AGAIN = 0.3  # how often the next agent dies in its youth, too
INSTANCES = (1, 1, 1, 2)


class Plain(Stage):
    """A stage of real agents: nobody dies but by a signal from outside."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.box.wrapper, self.box.module = [], ["-c", PATIENT]

    def _processes(self, programs: int) -> list[str]:
        """Keeper, scribe, agent and the programs, and no one else."""
        tree = {pid: _words(pid) for pid in self._tree()}
        apps = [words for words in tree.values() if "bin/web" in words]
        agents = [words for words in tree.values() if "_agent" in words]
        keepers = [words for words in tree.values() if PATIENT in words]
        if len(apps) == programs and len(agents) == 1 and len(tree) == programs + 1 + len(keepers):
            return []
        return [f"{pid}: {' '.join(words)[:200]}" for pid, words in tree.items()]


@dataclass
class Tally:
    """What was done, and what was wrong after it."""

    kills: int = 0
    pushes: int = 0
    requests: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)

    def told(self, whom: str) -> str:
        """One line."""
        runs = ", ".join(f"{count} {result}" for result, count in sorted(self.runs.items()))
        return (
            f"{whom}: {self.kills} kills, {self.pushes} pushes (runs: {runs}), {len(self.wrong)} violations, "
            f"{self.lost} of {self.requests} requests lost"
        )


class Rampage:
    """Pushes and deaths on one box."""

    def __init__(self, stage: Plain, dice: random.Random, tally: Tally) -> None:
        self.stage, self.box = stage, stage.box
        self._dice = dice
        self._tally = tally
        self._kind = Upgrade(stage)
        self._number = -1
        self._instances = 1

    async def commit(self) -> str:
        """The next version, with so many instances as the dice say."""
        self._number += 1
        self._instances = self._dice.choice(INSTANCES)
        parts = self._kind.parts(self._number)
        parts["run"] = {"command": [sys.executable, "-S", "bin/web"], "instances": self._instances}
        return await self.stage.world.deploy(f"{self._number}.0", **parts)

    async def push(self) -> None:
        """Commit, and tell it until somebody hears it."""
        commit = await self.commit()
        self._tally.pushes += 1

        async def heard() -> bool:
            with suppress(aiohttp.ClientError):
                return (await self.box.webhook(commit))[0] == 202
            return False

        await self.box.until(heard, DEADLINE)

    async def pushes(self, enough: asyncio.Event) -> None:
        """One push after the other, until it is enough."""
        while not enough.is_set():
            await self.push()
            with suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), self._dice.uniform(*BETWEEN_PUSHES))

    async def reached(self) -> bool:
        """Whether the last version that was pushed serves."""
        with suppress(aiohttp.ClientError):
            return await self._kind.reached(self._number)
        return False

    async def round(self, death: Any, most: int) -> int:
        """Push, die once or more, rest, and look; how many deaths there were."""
        enough, deaths, pause = asyncio.Event(), 0, UNTIL_DEATH
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pushes(enough))
            while deaths < most:
                await asyncio.sleep(self._dice.uniform(*pause))
                await death()
                deaths, pause = deaths + 1, UNTIL_NEXT_DEATH
                if self._dice.random() >= AGAIN:
                    break
            enough.set()
        await self.box.until(self.reached, DEADLINE)
        self._tally.wrong += await self.stage.wrong(self._instances)
        return deaths

    async def agent_dies(self) -> None:
        """kill -9 of the agent that is there, as soon as there is one."""
        assert self.box.process is not None
        keeper = self.box.process.pid
        while True:
            with suppress(StopIteration, ProcessLookupError, FileNotFoundError):
                os.kill(agent_below(keeper), signal.SIGKILL)
                return
            await asyncio.sleep(0.005)

    async def all_die(self) -> None:
        """kill -9 of everything, and another start."""
        await self.stage.world.kill_everything()
        await self.box.start()


async def rampage(whom: str, count: int, seed: int, tally: Tally) -> AsyncIterator[str]:
    """`count` deaths of the agent, or of the tree; a word after each look."""
    directory = Path(tempfile.mkdtemp(prefix="emptybox-kills-"))
    stage = Plain(directory)
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(stage.box)
            one = Rampage(stage, random.Random(f"{seed} {whom}"), tally)
            await one.commit()
            await stage.box.start()
            await stage.box.until(one.reached, DEADLINE)
            load = await stack.enter_async_context(_counted(stage, tally)) if whom == "agent" else None
            while tally.kills < count:
                death = one.agent_dies if whom == "agent" else one.all_die
                before = len(tally.wrong)
                tally.kills += await one.round(death, count - tally.kills)
                yield f"{whom} {tally.kills}: {tally.wrong[before:] or 'well'}"
                if load is not None and load.failures:
                    raise AssertionError(f"lost requests: {load.failures[:3]}")
            tally.runs = _results(stage.box.data / "journal.db")
    except BaseException as error:
        tally.wrong.append(repr(error)[-2000:])
        raise
    finally:
        if not tally.wrong:
            shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _counted(stage: Plain, tally: Tally) -> AsyncIterator[Load]:
    async with Load(stage.box.port, 2, 0.005) as load:
        try:
            yield load
        finally:
            tally.requests, tally.lost = load.total + len(load.failures), len(load.failures)
    if strange := [answer for answer in load.answers if not answer.endswith(".0")]:
        tally.wrong.append(f"clients were told {strange}")


def _results(journal: Path) -> Counter[str]:
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    try:
        return Counter(dict(connection.execute("SELECT result, count(*) FROM runs GROUP BY result")))
    finally:
        connection.close()


def _words(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return ["gone"]


async def _all(counts: dict[str, int], seed: int) -> int:
    told, bad = [], False
    for whom, count in counts.items():
        if count == 0:
            continue
        tally = Tally()
        try:
            async for line in rampage(whom, count, seed, tally):
                print(line, flush=True)
        except (AssertionError, ExceptionGroup) as error:
            print("".join(traceback.format_exception(error))[-20000:], flush=True)
        told.append(tally.told(whom))
        bad = bad or bool(tally.wrong or tally.lost)
    print("\n".join(told))
    return 1 if bad else 0


def main() -> int:
    """Kill and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.kills")
    parser.add_argument("--count", type=int, default=500, help="deaths of the agent alone")
    parser.add_argument("--trees", type=int, default=100, help="deaths of everything at once")
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    return asyncio.run(_all({"agent": options.count, "tree": options.trees}, options.seed))


if __name__ == "__main__":
    sys.exit(main())
