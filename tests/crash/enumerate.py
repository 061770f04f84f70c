"""Deploys of one kind, somebody dying at one more operation each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import aiohttp

from tests.crash.kind import Kind
from tests.crash.nursed import Nursery
from tests.crash.stage import DEADLINE, Stage
from tests.kit.clients import Load


@dataclass
class Point:
    """One death, and what was wrong after it."""

    at: int | str
    whom: str
    operation: str = ""
    died: bool = False
    wrong: list[str] = field(default_factory=list)


async def deaths(
    kind: type[Kind], directory: Path, whom: str, points: Iterable[int | str] | None = None, first: int = 1
) -> AsyncGenerator[Point, None]:
    """Die before the `first`, the next ... operation until a deploy gets through; or before these ones."""
    async with Nursery() as nursery, (stage := Stage(directory, nursery)).box:
        play = kind(stage)
        await play.peace()
        for deploy, at in enumerate(count(first) if points is None else points, start=1):
            point = await _one(stage, play, deploy, at, whom)
            yield point
            if points is None and not point.died:
                return


async def _one(stage: Stage, play: Kind, deploy: int, at: int | str, whom: str) -> Point:
    point = Point(at, whom)
    async with AsyncExitStack() as stack:
        load = Load(stage.box.port, 2, 0.01)
        if play.lossless and whom == "agent":
            await stack.enter_async_context(load)
        await play.prepare(deploy)
        commit = await play.begin(deploy)
        play.whom, play.at = whom, at
        stage.arm(play.first_death(deploy), whom)
        reviving = asyncio.ensure_future(stage.revive())
        try:
            await play.launch(commit)
            await _dead_or_there(stage, play, deploy)
            if stage.fired:
                await play.meanwhile(deploy)
            stage.hold(False)
            await play.there(deploy)
            point.died = stage.disarm()
            point.wrong = await stage.wrong(play.programs) + await play.wrong()
        except AssertionError as error:
            point.died = stage.disarm()
            point.wrong.append(f"not reached: {error}"[:4000])
        finally:
            stage.hold(False)
            reviving.cancel()
            await asyncio.gather(reviving, return_exceptions=True)
    point.operation = stage.trace[-1] if point.died else ""
    if load.failures:
        point.wrong.append(f"lost requests: {load.failures[:3]}")
    if strange := set(load.answers) - play.allowed(deploy):
        point.wrong.append(f"clients were told {strange}")
    return point


async def _dead_or_there(stage: Stage, play: Kind, deploy: int) -> None:
    """Wait until somebody died, or the deploy got through."""

    async def either() -> bool:
        try:
            return stage.fired or (await play.reached(deploy) and await stage.rests())
        except aiohttp.ClientError:
            return False

    await stage.box.until(either, DEADLINE)
    await stage.swept(play.programs)
