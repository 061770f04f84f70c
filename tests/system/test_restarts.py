"""What serves ends by itself: it is started again, its clients wait, and who asks is told the truth."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.world import World

QUICK = {"backoff": "50ms", "backoff_max": "100ms", "budget": 3, "window": "60s", "cooldown": "1s"}


def run_with(world: World, **restart: Any) -> dict[str, Any]:
    command = world.app("0")["run"]["command"]
    return {"command": command, "restart": {**QUICK, **restart}}


def condition(app: dict[str, Any], kind: str) -> str | None:
    return next((c["status"] for c in app["conditions"] if c["type"] == kind), None)


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_a_proven_child_that_ends_is_started_again_and_its_clients_wait(box: Box, how: str) -> None:
    world = World(box)
    hook = world.shell(
        'echo "$EMPTYBOX_EXIT_CODE/$EMPTYBOX_EXIT_SIGNAL" >> $W/crashes; echo "$EMPTYBOX_LOG_TAIL" > $W/tail'
    )
    await world.running(run=run_with(world), hooks={"crashed": hook})
    (first,) = world.puppets()
    async with Load(box.port) as load:
        if how == "exit":
            await world.crash()
        else:
            os.kill(first[1], signal.SIGKILL)
        assert await world.said("crashes") == ["7/" if how == "exit" else "/9"]
        assert "version 1.0 starts" in await world.said("tail")
        await world.said("lives", 2)
        await box.serving("1.0")
        app = await box.app_is(state="running", current__version="1.0")
    lost = [failure for failure in load.failures if "refused" in failure.lower()]
    assert lost == []
    assert len(load.failures) <= 8, "only who was being answered at that moment"
    assert set(load.answers) == {"1.0"}
    ((_, pid),) = world.puppets()
    assert pid != first[1]
    assert app["child"]["pid"] == pid
    assert app["child"]["restarts"] == 1
    assert app["child"]["last_exit"]["code"] == (7 if how == "exit" else None)
    assert app["child"]["last_exit"]["signal"] == (None if how == "exit" else 9)
    assert app["last_failure"]["reason"] == "ChildExited"
    assert 'emptybox_child_restarts_total{app="web"} 1.0' in await box.metrics()
    assert [run["result"] for run in await box.history()] == ["succeeded"]
    await world.tidy()


async def test_while_it_is_down_the_status_says_so(box: Box) -> None:
    world = World(box)
    await world.running(run=run_with(world), maintenance={"hold": "200ms", "retry_after": "7s"})
    world.pull("late-1.0")
    await world.crash()
    app = await box.app_is(state="maintenance", gate="holding")
    assert app["serving"] is False
    app = await box.app_is(state="maintenance", gate="maintenance")
    assert (await box.get("/", {"Accept": "text/html"}))[0] == 503
    assert 'emptybox_app_up{app="web"} 0.0' in await box.metrics()
    world.release("late-1.0")
    await box.serving("1.0")
    app = await box.app_is(state="running", gate="open")
    assert app["serving"] is True


async def test_a_start_that_outlasts_the_hold_is_probed_all_the_same(box: Box) -> None:
    world = World(box)
    await world.running(run=run_with(world), maintenance={"hold": "100ms"})
    world.pull("late-1.0")
    await world.crash()
    await box.app_is(gate="maintenance")
    world.release("late-1.0")
    await box.serving("1.0")
    assert len(world.lines("lives")) == 2, "the first restart was enough"


async def test_a_restart_swap_that_outlasts_the_hold_is_probed_all_the_same(box: Box) -> None:
    world = World(box)
    await world.running(swap="restart")
    world.pull("late-2.0")
    await world.deploy("2.0", push=True, swap="restart", maintenance={"hold": "100ms"})
    await world.only("2.0")
    await box.app_is(gate="maintenance")
    world.release("late-2.0")
    await box.proven("2.0")
    assert [run["result"] for run in await box.history()] == ["succeeded", "succeeded"]


async def test_a_crash_loop_ends_in_a_pause_with_the_page_and_a_condition(box: Box) -> None:
    world = World(box)
    await world.running(
        run=run_with(world, cooldown="60s"), maintenance={"hold": "100ms"}, health={"deadline": "1500ms"}
    )
    world.pull("sick")
    await world.crash()

    async def looping() -> bool:
        return condition(await box.app(), "CrashLooping") == "True"

    await box.until(looping)
    app = await box.app_is(state="maintenance", gate="maintenance")
    assert (await box.get())[0] == 503
    assert app["child"]["restarts"] >= 3
    (looped,) = [c for c in app["conditions"] if c["type"] == "CrashLooping"]
    assert "paused for 60 s" in looped["message"]
    world.release("sick")
    await world.deploy("2.0", push=True)
    app = await box.proven("2.0")
    assert condition(app, "CrashLooping") == "False"
    await world.only("2.0")
    await world.tidy()


async def test_after_its_pause_a_crash_loop_gets_another_chance(box: Box) -> None:
    world = World(box)
    await world.running(run=run_with(world, budget=1, cooldown="300ms"), health={"deadline": "1500ms"})
    world.pull("sick")
    await world.crash()

    async def looping() -> bool:
        return condition(await box.app(), "CrashLooping") == "True"

    await box.until(looping)
    world.release("sick")
    await box.serving("1.0")
    app = await box.app_is(state="running")
    assert condition(app, "CrashLooping") == "False"


async def test_a_push_in_the_middle_of_restarts_swaps_to_the_new_version(box: Box) -> None:
    world = World(box)
    slow = {"backoff": "30s", "backoff_max": "30s"}
    for swap, versions in (("restart", ("1.0", "2.0")), ("overlap", ("3.0", "4.0"))):
        await world.deploy(versions[0], push=box.process is not None, run=run_with(world, **slow), swap=swap)
        if box.process is None:
            await box.start()
        await box.proven(versions[0])
        await world.crash()
        await box.app_is(state="maintenance")
        await world.deploy(versions[1], push=True, swap=swap)
        await box.proven(versions[1])
        await world.only(versions[1])
    await world.tidy()
    assert await box.stop() == 0


async def test_term_in_the_middle_of_restarts_ends_in_order(box: Box) -> None:
    world = World(box)
    await world.running(run=run_with(world, backoff="30s", backoff_max="30s"))
    await world.crash()
    await box.app_is(state="maintenance")
    assert await box.stop() == 0


async def test_a_child_that_ends_while_there_is_no_agent_is_started_by_the_next_one(box: Box) -> None:
    world = World(box)
    await world.running(run=run_with(world))
    agent = await box.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    async with Load(box.port) as load:
        ((_, pid),) = world.puppets()
        os.kill(pid, signal.SIGKILL)
        await world.only()
        os.kill(agent, signal.SIGKILL)
        await world.said("lives", 2)
        await box.serving("1.0")
    assert [failure for failure in load.failures if "refused" in failure.lower()] == []
    await box.app_is(state="running", current__version="1.0")
    await world.only("1.0")
    await world.tidy()
