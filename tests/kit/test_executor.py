"""Work is done by the threads that are there."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.kit.executor import Threads

DEADLINE = 30.0


async def test_work_waits_for_a_thread_when_no_other_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, hold = asyncio.get_running_loop(), threading.Event()
    with Threads(4) as threads:
        first = loop.run_in_executor(threads, hold.wait)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        others = [loop.run_in_executor(threads, lambda n=n: n) for n in range(3)]  # type: ignore[misc]
        hold.set()
        async with asyncio.timeout(DEADLINE):
            assert await first
            assert await asyncio.gather(*others) == [0, 1, 2]


async def test_without_any_thread_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Threads(4) as threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            threads.submit(print)
        monkeypatch.undo()
