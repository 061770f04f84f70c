"""Hours without Git, in real time: `python -m tests.endurance.outage [--hours N]`.

The forge goes away under a box that serves. A version is pushed meanwhile, of which a webhook tells that
cannot be followed yet; half-way everything dies, and starts from what is on disk. All the time the app is
asked, and the agent how it is. Then the forge is back, and nobody tells the agent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.status.conditions import SOURCE_REACHABLE
from tests.endurance import costs
from tests.kit.box import Box, Load
from tests.kit.watching import condition
from tests.kit.world import World

LOOK = 1.0  # seconds between two looks at /status
PATIENCE = 120.0  # seconds after which the version must be there: two usual intervals of polling


@dataclass
class Outage:
    """What was seen."""

    requests: int = 0
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds, of /status
    wrong: list[str] = field(default_factory=list)
    samples: list[costs.Sample] = field(default_factory=list)
    looks: int = 0
    back: float = 0.0  # seconds from the forge's return to the version that was pushed meanwhile


async def outage(directory: Path, seconds: float, settings: dict[str, str] | None = None) -> Outage:
    """Take the forge away for so long."""
    seen = Outage()
    async with Box(directory, settings={"--log-level": "info", **(settings or {})}) as box:
        world = World(box)
        await world.running("1.0")
        await box.forge.stop()
        commit = await world.deploy("2.0")
        await _half(box, seen, seconds / 2, commit)
        await world.kill_everything()
        await box.start()  # without Git, and from nothing but the disk
        await box.serving("1.0")
        await _half(box, seen, seconds / 2, commit)
        await box.forge.start()
        began = time.monotonic()
        await box.until(lambda: _serves(box, "2.0"), PATIENCE)
        seen.back = time.monotonic() - began
        await box.proven("2.0")
        if _reachable(await box.status()) != "True":
            seen.wrong.append("it does not say that Git is back")
    return seen


async def _half(box: Box, seen: Outage, seconds: float, commit: str) -> None:
    """So long with nothing else going on; the push is told of at once."""
    end, next_sample = time.monotonic() + seconds, 0.0
    status, answer = await box.webhook(commit)
    if status != 202:
        seen.wrong.append(f"a push was answered {status} {answer}")
    await box.until(lambda: _away(box))
    async with Load(box.port, 1, 0.2) as load:
        while (now := time.monotonic()) < end:
            await _look(box, seen)
            if now >= next_sample:
                assert box.process is not None
                seen.samples.append(await asyncio.to_thread(costs.sample, box.process.pid, box.data))
                next_sample = now + 60
            await asyncio.sleep(min(LOOK, max(0.0, end - time.monotonic())))
    seen.requests += load.total
    seen.lost += load.failures
    if strange := set(load.answers) - {"1.0"}:
        seen.wrong.append(f"clients were told {strange}")


async def _look(box: Box, seen: Outage) -> None:
    began = time.monotonic()
    status = await box.status()
    seen.slowest = max(seen.slowest, time.monotonic() - began)
    seen.looks += 1
    web = status["apps"]["web"]
    if (web["state"], web["current"]["version"]) != ("running", "1.0"):
        seen.wrong.append(f"told: {web['state']} {web['current']}")
    if _reachable(status) != "False":
        seen.wrong.append("it says that Git is there")


async def _away(box: Box) -> bool:
    return _reachable(await box.status()) == "False"


def _reachable(status: dict[str, Any]) -> str:
    return str(condition(status, SOURCE_REACHABLE)["status"])


async def _serves(box: Box, version: str) -> bool:
    return await box.get() == (200, f"{version}\n")


def told(seen: Outage) -> str:
    """A few lines for people."""
    first, last = seen.samples[min(5, len(seen.samples) - 1)], seen.samples[-1]
    grown = [f"{name}: {first[name]:g}, then {last[name]:g}" for name in last if last[name] > first[name]]
    return "\n".join(
        [
            f"{seen.requests} requests, {len(seen.lost)} lost; {seen.looks} looks at /status,"
            f" the slowest {1000 * seen.slowest:.0f} ms",
            f"back after {seen.back:.1f} s; wrong: {seen.wrong[:5] or 'nothing'}",
            "more in the end than after five minutes: " + ("; ".join(grown) or "nothing"),
        ]
    )


def main() -> int:
    """Wait and look; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.outage")
    parser.add_argument("--hours", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emptybox-outage-") as directory:
        seen = asyncio.run(outage(Path(directory), 3600 * options.hours))
    print(told(seen))
    return 1 if seen.wrong or seen.lost else 0


if __name__ == "__main__":
    sys.exit(main())
