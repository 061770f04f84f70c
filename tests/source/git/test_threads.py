from __future__ import annotations

import asyncio
import threading

import pytest

from agent.source.git.threads import abandonable, stoppable


async def test_cancelling_stoppable_work_waits_until_it_has_stopped() -> None:
    started, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        started.set()
        assert stop.wait(5)
        ended.set()
        raise InterruptedError

    task = asyncio.ensure_future(stoppable(work))
    while not started.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_work_left_behind_is_disposed_of_when_it_comes() -> None:
    go, disposed = threading.Event(), asyncio.Event()

    def work() -> str:
        assert go.wait(5)
        return "late"

    seen: list[str] = []

    def dispose(result: str) -> None:
        seen.append(result)
        disposed.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await abandonable(work, dispose)
    go.set()
    async with asyncio.timeout(5):
        await disposed.wait()
    assert seen == ["late"]


async def test_errors_of_work_left_behind_trouble_nobody() -> None:
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(5)
        ended.set()
        raise OSError("nobody hears")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await abandonable(work, print)
    go.set()
    while not ended.is_set():
        await asyncio.sleep(0)


async def test_results_and_errors_pass() -> None:
    assert await abandonable(lambda: 1, print) == 1
    assert await stoppable(lambda stop: stop.is_set()) is False
    with pytest.raises(ZeroDivisionError):
        await stoppable(lambda _: 1 // 0)
