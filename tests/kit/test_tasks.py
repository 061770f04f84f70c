from __future__ import annotations

import asyncio

import pytest

from agent.kit.tasks import uninterrupted, unless


async def test_uninterrupted_work_ends_before_its_callers_cancellation_passes() -> None:
    begun, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await may_end.wait()
        done.set()
        return "result"

    task = asyncio.ensure_future(uninterrupted(work(), name="work"))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    assert await uninterrupted(work(), name="work") == "result"


async def test_uninterrupted_work_under_a_deadline_ends_first_and_is_late_then() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.02)
        done.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await uninterrupted(work(), name="work")
    assert done.is_set()


async def test_uninterrupted_work_raises_its_own_error_unless_the_caller_was_cancelled() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await uninterrupted(work(), name="work")
    task = asyncio.ensure_future(uninterrupted(work(), name="work"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_event_that_comes_first_ends_the_work() -> None:
    event, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        try:
            event.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        return "never"

    async with asyncio.timeout(10):
        assert await unless(event, work(), name="work") is None
    assert cleaned.is_set()


async def test_work_that_ends_first_gives_its_result_or_error() -> None:
    async def work(error: bool) -> str:
        await asyncio.sleep(0)
        if error:
            raise ValueError("broken")
        return "result"

    assert await unless(asyncio.Event(), work(False), name="work") == "result"
    with pytest.raises(ValueError, match="broken"):
        await unless(asyncio.Event(), work(True), name="work")


async def test_cancelling_cancels_the_work_too() -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.ensure_future(unless(asyncio.Event(), work(), name="work"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()
