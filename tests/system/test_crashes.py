"""kill -9 at the worst moments: of the agent alone, and of everything at once.

Of the agent: the app serves throughout, the run is finished or undone, history says so. Of everything:
the next start finds the old release or the new one, whole. Either way the wanted version is reached in
the end, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.unruly import Unruly
from tests.kit.world import World

Moment = Callable[[World], Awaitable[None]]


# -- moments: each begins a deploy of 2.0 and returns in the middle of it -----------------------------


async def fetching(world: World) -> None:
    assert world.server is not None
    await world.deploy("2.0", push=True)

    async def half_there() -> bool:
        assert world.server is not None
        return world.server.waiting > 0

    await world.box.until(half_there)


async def migrating(world: World) -> None:
    command = world.shell(
        "test -e $W/migrating && echo twice >> $W/problems; echo $$ > $W/migrating; echo x >> $W/migrations;"
        " while test -e $W/hold; do sleep 0.02; done; rm $W/migrating; echo x >> $W/migrated"
    )
    world.pull("hold")
    await world.deploy("2.0", push=True, migrate=[{"name": "schema", "command": command}])
    await world.said("migrations")


async def probing(world: World) -> None:
    world.pull("sick-2.0")
    await world.deploy("2.0", push=True)

    async def probed() -> bool:
        return any("step probe begins" in line and "run=" in line for line in _since_push(world))

    await world.only("1.0", "2.0")
    await world.box.until(probed)


async def switched(world: World) -> None:
    await world.deploy("2.0", push=True, health={"probation": "2s"})
    await world.box.serving("2.0")


async def on_probation(world: World) -> None:
    await world.deploy("2.0", push=True, health={"probation": "1s"})
    await world.box.app_is(state="probation", current__version="2.0", run=None)


def _since_push(world: World) -> list[str]:
    lines = world.box.output
    last = max(i for i, line in enumerate(lines) if "trigger push" in line)
    return lines[last:]


def let_go(world: World) -> None:
    """Whatever held the run up holds up the next one no more."""
    if world.server is not None:
        world.server.held = False
    for name in ("hold", "sick-2.0"):
        if (world.path / name).exists():
            world.release(name)


MOMENTS = [fetching, migrating, probing, switched, on_probation]


@asynccontextmanager
async def stage(box: Box) -> AsyncIterator[World]:
    """1.0 serves and has proved itself; its successor's artifact will stop in the middle if `held`."""
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        yield world


async def nothing_runs(box: Box) -> bool:
    return not (await box.status())["source"]["running"]


def results(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(run["version"], run["result"]) for run in runs]


def steps(runs: list[dict[str, Any]], run: int) -> dict[str, tuple[str, bool]]:
    """The steps of a run: how each ended, and whether it was taken back."""
    return {step["name"]: (step["result"], step["undone"]) for step in runs[run]["steps"]}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_kill_9_of_the_agent_in_a_run(box: Box, moment: Moment) -> None:
    async with stage(box) as world:
        assert world.server is not None
        world.server.held = moment is fetching
        async with Load(box.port) as load:
            await moment(world)
            agent = await box.agent_pid()
            await world.kill_agent()
            await another_agent(world, agent)
            if moment is migrating:  # the first one is still at it: no second one beside it
                await asyncio.sleep(0.3)
                assert len(world.lines("migrations")) == 1
            let_go(world)
            await box.proven("2.0")
            await world.only("2.0")
        assert load.failures == []
        assert set(load.answers) <= {"1.0", "2.0"}
        told = results(await box.history())
        assert told[-1] == ("1.0", "succeeded")
        if moment in (switched, on_probation):
            assert told == [("2.0", "succeeded"), ("1.0", "succeeded")]
        else:
            assert told == [("2.0", "succeeded"), ("2.0", "interrupted"), ("1.0", "succeeded")]
        assert world.lines("problems") == []
        if moment is probing:
            # How a step ended is written down a moment later; that it was taken back is known in any case.
            found = steps(await box.history(), 1)
            assert found["start"] in (("succeeded", True), ("cancelled", True))
            if found["start"][0] == "succeeded":
                assert found["probe"] in {(word, False) for word in ("pending", "cancelled", "skipped")}
        if moment in (switched, on_probation):
            assert set(steps(await box.history(), 0).values()) == {("succeeded", False)}
        await world.tidy()
        await box.until(lambda: nothing_runs(box))


@pytest.mark.parametrize("moment", MOMENTS)
async def test_kill_9_of_everything_in_a_run(box: Box, moment: Moment) -> None:
    async with stage(box) as world:
        assert world.server is not None
        world.server.held = moment is fetching
        await moment(world)
        await world.kill_everything()
        repository, box.settings["--repo"] = box.repository.url, "http://127.0.0.1:9/nowhere.git"
        await box.start()  # without Git: what is on disk
        version = "2.0" if moment in (switched, on_probation) else "1.0"
        await box.serving(version)
        await world.only(version)
        assert results(await box.history())[-1] == ("1.0", "succeeded")
        await world.kill_everything()
        let_go(world)
        box.settings["--repo"] = repository
        await box.start()
        await box.proven("2.0")
        await world.only("2.0")
        await world.tidy()
        assert not [r for r in results(await box.history()) if r[1] in ("running", "probation")]


async def test_kill_9_of_the_agent_between_stop_and_start_of_a_restart_swap(box: Box) -> None:
    world = World(box)
    await world.running(swap="restart")
    world.pull("late-2.0")
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, swap="restart", maintenance={"hold": "20s"})
        await world.only("2.0")  # 1.0 is gone, 2.0 accepts nobody yet
        agent = await box.agent_pid()
        await world.kill_agent()
        await another_agent(world, agent)
        await box.serving("1.0")
        world.release("late-2.0")
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) <= {"1.0", "2.0", "503"}
    assert results(await box.history())[1:] == [("2.0", "interrupted"), ("1.0", "succeeded")]
    await world.only("2.0")
    await world.tidy()


async def test_kill_9_of_everything_in_the_middle_of_a_restart_swap(box: Box) -> None:
    world = World(box)
    await world.running(swap="restart")
    world.pull("late-2.0")
    await world.deploy("2.0", push=True, swap="restart")
    await world.only("2.0")
    await world.kill_everything()
    world.release("late-2.0")
    await box.start()
    await box.proven("2.0")
    await world.only("2.0")
    assert ("2.0", "interrupted") in results(await box.history())
    await world.tidy()


async def test_who_comes_while_the_agent_before_still_ends_waits_for_its_end(box: Box) -> None:
    world = World(box)
    await world.running()
    agent = await box.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    await box.stop(signal.SIGKILL)  # of the keeper
    starting = asyncio.ensure_future(box.start())

    async def told() -> bool:
        return any(f"another agent (pid {agent})" in line for line in box.output)

    try:
        await box.until(told)
    finally:
        os.kill(agent, signal.SIGCONT)
    await starting
    await box.proven("1.0")
    await world.only("1.0")


async def another_agent(world: World, former: int) -> None:
    """Wait until the keeper has started the next agent and it answers."""

    async def there() -> bool:
        try:
            return await world.box.agent_pid() != former
        except Exception:
            return False

    await world.box.until(there)


async def test_a_run_that_had_proved_itself_has_succeeded_also_if_its_program_cannot_be_started(
    box: Box,
) -> None:
    world = World(box)
    program = world.path / "program"
    program.symlink_to(sys.executable)
    parts: dict[str, Any] = {
        "run": {"command": [str(program), "-S", "bin/web"], "restart": {"backoff": "100ms"}},
        "health": {"deadline": "20s", "probation": "100ms"},
    }
    await world.running(**parts)
    await world.kill_everything()
    with closing(sqlite3.connect(box.data / "journal.db")) as connection, connection:
        connection.execute("UPDATE runs SET result = 'probation'")  # the last word was not written any more
        connection.execute("UPDATE syncs SET result = 'probation'")
    program.unlink()
    box.settings["--repo"] = "http://127.0.0.1:9/nowhere.git"
    await box.start()
    await box.app_is(good__version="1.0", last_failure__reason="CommandNotFound")

    async def told() -> list[str]:
        return [run["result"] for run in await box.history()]

    async def ended() -> bool:
        return "probation" not in await told()

    await box.until(ended)
    assert await told() == ["succeeded"]
    program.symlink_to(sys.executable)
    await box.serving("1.0")
