"""What clients of every kind get on the public port while no version serves."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.world import World

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGE_AT_ONCE: dict[str, Any] = {"swap": "restart", "maintenance": {"hold": "0s", "retry_after": "7s"}}
PATIENT = {"deadline": "30s"}

GRPC = """
import json, sys, grpc
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    try:
        channel.unary_unary("/pkg.Service/Call")(b"hello", timeout=20)
    except grpc.RpcError as error:
        print(json.dumps([error.code().name, error.details()]))
"""


@pytest.fixture
def world(box: Box) -> World:
    return World(box)


async def updating(world: World, version: str, **parts: Any) -> asyncio.Task[tuple[int, dict[str, Any]]]:
    """A version is on its way that does not get healthy until it is let: its old one is gone."""
    world.pull(f"sick-{version}")
    commit = await world.deploy(version, **parts, **PAGE_AT_ONCE, health=PATIENT)
    waiting = world.waiting(commit)
    await world.box.app_is(run__phase="probe", gate="maintenance")
    return waiting


async def updated(world: World, version: str, waiting: asyncio.Task[tuple[int, dict[str, Any]]]) -> None:
    """It is let, and serves."""
    world.release(f"sick-{version}")
    assert (await waiting)[0] == 202
    await world.box.proven(version)


async def progress(box: Box) -> dict[str, Any]:
    """As programs are told it."""
    status, text = await box.get(headers={"Accept": "application/json"})
    assert status == 503
    found: dict[str, Any] = json.loads(text)["progress"]
    return found


async def test_the_page_tells_phase_progress_and_what_is_left_going_by_earlier_updates(world: World) -> None:
    box = world.box

    async def longer() -> bool:
        return bool((await progress(box))["detail"] == "longer than usual")

    world.pull("sick-1.0")
    await world.deploy("1.0", **PAGE_AT_ONCE, health=PATIENT)
    await box.start()
    await box.app_is(run__phase="probe")
    told = await progress(box)
    assert (told["phase"], told["left"]) == ("Starting", None), "it never started before, so nobody knows"
    status, html = await box.get(headers=BROWSER)
    assert (status, 'http-equiv="refresh"' in html, "<script" in html) == (503, True, False)
    world.release("sick-1.0")
    await box.proven("1.0")

    waiting = await updating(world, "2.0")
    await box.until(longer)
    assert (await progress(box))["left"] is None
    await updated(world, "2.0", waiting)

    waiting = await updating(world, "3.0")
    told = await progress(box)
    assert (told["phase"], told["left"] > 0, told["percent"] < 100) == ("Starting", True, True)
    assert " s left</p>" in (await box.get(headers=BROWSER))[1]
    assert (await box.app())["run"]["seconds_left"] > 0
    await updated(world, "3.0", waiting)


async def test_a_grpc_client_is_told_unavailable(world: World) -> None:
    await world.running("1.0", **PAGE_AT_ONCE)
    waiting = await updating(world, "2.0")
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GRPC, str(world.box.port), stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await client.communicate()
    assert json.loads(answer) == ["UNAVAILABLE", "this service is being updated, try again in 7 s"]
    await updated(world, "2.0", waiting)
