"""Whoever stops waiting, and whenever: nothing half done stays."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.errors import Transient
from agent.kit.threads import settled
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import big, release, soon, spec
from tests.kit.artifact_server import ArtifactServer


async def test_the_others_go_on_when_one_of_them_leaves(server: ArtifactServer, artifacts: Artifacts) -> None:
    data = big(2_000_000)
    server.put("web.tar", data)
    wanted = spec(f"{server.url}/slow/web.tar", data)
    under_way = asyncio.Event()
    async with artifacts.deliver(wanted, "web") as stays:
        async with artifacts.deliver(wanted, "web", lambda *_: under_way.set()):
            await soon(under_way)
        under_way.clear()
        async with artifacts.deliver(wanted, "web", lambda *_: under_way.set()):
            await soon(under_way)  # still coming in
        waiter = asyncio.ensure_future(stays.published())
        await asyncio.sleep(0)
        assert not waiter.done()
        waiter.cancel()


async def test_leaving_early_leaves_nothing_behind(server: ArtifactServer, artifacts: Artifacts) -> None:
    data = big(5_000_000)
    server.put("web.tar", data)
    wanted = spec(f"{server.url}/slow/web.tar", data)
    async with artifacts.deliver(wanted, "web") as delivery:
        waiting = asyncio.ensure_future(delivery.published())
        async with asyncio.timeout(30):
            while not list((artifacts.store.root / "tmp").glob("*/noise")):
                await asyncio.sleep(0.005)
    assert_no_traces(artifacts.store)
    with pytest.raises(Transient):
        await waiting
    assert not artifacts.store.has(delivery.release)
    assert (await server.requests(1))[0].status == 200  # nginx saw the end: the connection is closed


async def test_a_release_can_be_asked_for_again_while_its_cancelled_delivery_is_cleaned_up(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = big(3_000_000)
    url = server.put("web.tar", data)
    under_way = asyncio.Event()
    slow = spec(f"{server.url}/slow/web.tar", data)

    async def give_up() -> None:
        async with artifacts.deliver(slow, "web", lambda *_: under_way.set()):
            await soon(under_way)

    async def ask_again() -> None:
        await soon(under_way)
        await asyncio.sleep(0)
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            await delivery.published()

    async with asyncio.TaskGroup() as group:
        group.create_task(give_up())
        group.create_task(ask_again())
    assert_no_traces(artifacts.store)


async def test_cancelling_at_any_moment_leaves_a_whole_release_or_nothing(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release(b"x", 1_500_000)
    wanted = spec(server.put("web.tar.gz", data), data)

    async def deliver() -> None:
        async with artifacts.deliver(wanted, "web") as delivery:
            await delivery.published()

    endings = set()
    for moment in range(60):
        task = asyncio.ensure_future(deliver())
        await asyncio.wait([task], timeout=moment * 0.0005)
        task.cancel()
        await asyncio.wait([task])
        assert_no_traces(artifacts.store)
        trees = list((artifacts.store.root / "trees").iterdir())
        assert all((tree / "share/noise").stat().st_size == 1_500_000 for tree in trees)
        endings.add((task.cancelled(), len(trees)))
        await artifacts.store.collect([])
    assert (True, 0) in endings


async def test_closing_everything_ends_those_who_wait(server: ArtifactServer, store: Store) -> None:
    data = big(3_000_000)
    server.put("web.tar", data)
    wanted = spec(f"{server.url}/slow/web.tar", data)
    under_way = asyncio.Event()
    async with Artifacts(store) as artifacts:
        delivery = artifacts.deliver(wanted, "web", lambda *_: under_way.set())
        await delivery.__aenter__()
        await soon(under_way)
    with pytest.raises(Transient):
        await delivery.published()
    await delivery.__aexit__(None, None, None)
    assert_no_traces(store)


async def test_a_cancelled_task_ends_only_after_its_thread_has_and_asks_it_to() -> None:
    stop, started, ended = threading.Event(), asyncio.Event(), False
    loop = asyncio.get_running_loop()

    def work() -> None:
        nonlocal ended
        loop.call_soon_threadsafe(started.set)
        assert stop.wait(30)
        ended = True
        raise ValueError("told to nobody")

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.ensure_future(settled(loop.run_in_executor(executor, work), on_cancel=stop.set))
        await soon(started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended
        assert await settled(loop.run_in_executor(executor, lambda: 7)) == 7
