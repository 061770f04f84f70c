from __future__ import annotations

import asyncio

import pytest

from agent.kit import standstill
from agent.kit.standstill import Standstill


async def test_no_deadline_counts_the_time_in_which_all_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "AGAIN", 0.01)
    still = Standstill()
    still.begins(0.0)

    async def work() -> None:
        async with still.timeout(0.02):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    done, _ = await asyncio.wait({task}, timeout=0.2)
    assert not done
    still.ends()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 30)


def test_only_standstills_are_counted() -> None:
    now = 100.0
    still = Standstill(lambda: now)
    assert (still.now, still.seconds) == (False, 0.0)
    now = 110.0
    still.begins(4.0)
    now = 111.0
    assert (still.now, still.seconds) == (True, 5.0)
    still.ends()
    now = 200.0
    assert (still.now, still.seconds) == (False, 5.0)
    still.begins(0.0)
    now = 201.0
    assert still.seconds == 6.0


async def test_who_is_done_in_time_leaves_nothing_behind() -> None:
    still = Standstill()
    async with still.timeout(30.0) as scope:
        pass
    assert not scope.expired()
    with pytest.raises(RuntimeError, match="mine"):
        async with still.timeout(30.0):
            raise RuntimeError("mine")
