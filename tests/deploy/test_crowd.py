"""Turns of programs that are started again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from agent.deploy.crowd import Crowd


class Visitors:
    """Those who have a turn, and how to let one go."""

    def __init__(self, crowd: Crowd, count: int) -> None:
        self.inside: set[int] = set()
        self.done = [asyncio.Event() for _ in range(count)]
        self.tasks = [asyncio.create_task(self._visit(crowd, number)) for number in range(count)]

    async def _visit(self, crowd: Crowd, number: int) -> None:
        async with crowd.turn():
            self.inside.add(number)
            await self.done[number].wait()
            self.inside.discard(number)

    async def until(self, inside: set[int]) -> None:
        async with asyncio.timeout(30.0):
            while self.inside != inside:
                await asyncio.sleep(0.001)


async def test_so_many_have_a_turn_and_each_who_ends_or_is_cancelled_makes_room_for_one() -> None:
    visitors = Visitors(Crowd(width=2, patience=1000.0), 6)
    await visitors.until({0, 1})
    visitors.tasks[2].cancel()
    visitors.done[0].set()
    await visitors.until({1, 3})
    visitors.tasks[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await visitors.tasks[1]
    visitors.inside.discard(1)
    await visitors.until({3, 4})
    for event in visitors.done:
        event.set()
    await asyncio.gather(*visitors.tasks, return_exceptions=True)


@pytest.mark.parametrize("ended", [True, False])
async def test_a_turn_lasts_no_longer_than_its_patience(ended: bool) -> None:
    crowd = Crowd(width=1, patience=0.01)
    visitors = Visitors(crowd, 3)
    await visitors.until({0, 1, 2})
    for event in visitors.done:
        event.set()
    await asyncio.gather(*visitors.tasks)
    again = Visitors(Crowd(width=1, patience=1000.0) if ended else crowd, 2)
    await again.until({0} if ended else {0, 1})
    for event in again.done:
        event.set()
    await asyncio.gather(*again.tasks)
