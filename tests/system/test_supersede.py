"""Newer commits while a run is under way: who is cancelled, who ends first, who is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.ports import free_port
from tests.kit.unruly import Unruly
from tests.kit.world import World

PUPPET = [sys.executable, "-S", "bin/web"]


async def run_of(box: Box, version: str, app: str = "web") -> dict[str, Any]:
    """Wait until a run of this version is under way, and recorded."""

    async def there() -> dict[str, Any] | None:
        runs = [r for r in await box.history() if r["app"] == app and r["version"] == version]
        return runs[0] if runs and (await box.app(app))["run"] else None

    found: dict[str, Any] = await box.until(there)
    return found


async def ended(box: Box, run: dict[str, Any]) -> str:
    """Wait until a run has ended (probation included); its result."""

    async def result() -> str | None:
        found = next(r for r in await box.history() if r["id"] == run["id"])
        return None if found["result"] == "running" else str(found["result"])

    return str(await box.until(result))


async def last_word(box: Box, run: dict[str, Any]) -> str:
    """Wait until a run has its last word; the word."""

    async def result() -> str | None:
        found = next(r for r in await box.history() if r["id"] == run["id"])
        return None if found["result"] in ("running", "probation") else str(found["result"])

    return str(await box.until(result))


def results(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(run["version"], run["result"]) for run in runs]


async def test_a_newer_commit_cancels_a_run_before_migrate_but_only_twice_in_a_row(box: Box) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        server.held = True
        async with Load(box.port) as load:
            for version in ("2.0", "3.0"):
                commit = await world.deploy(version, push=True)
                run = await run_of(box, version)
            last_cancelled = run
            commit = await world.deploy("4.0", push=True)
            run = await run_of(box, "4.0")
            assert await ended(box, last_cancelled) == "cancelled"
            waiting = await world.deploy("5.0")
            status, _ = await box.webhook(waiting)
            assert status == 202
            await until_looked_at(box, waiting)
            assert (await box.app())["run"]["id"] == run["id"], "the third one is seen through"
            server.held = False
            assert await ended(box, run) in ("probation", "superseded", "succeeded")
            await box.proven("5.0")
        assert load.failures == []
        told = results(await box.history())
        assert told[-3:] == [("3.0", "cancelled"), ("2.0", "cancelled"), ("1.0", "succeeded")]
        assert told[0] == ("5.0", "succeeded")
        assert commit
        await world.only("5.0")
        await world.tidy()


async def until_looked_at(box: Box, commit: str) -> None:
    """Wait until a look has resolved this commit."""

    async def looked() -> bool:
        return bool((await box.status())["source"]["commit"] == commit)

    await box.until(looked)


async def test_the_sync_of_a_cancelled_run_ends_as_superseded(box: Box) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        server.held = True
        first = await world.deploy("2.0")
        waiting = world.waiting(first)
        await run_of(box, "2.0")
        await world.deploy("3.0", push=True)
        status, answer = await waiting
        assert (status, answer["result"]) == (409, "superseded")
        server.held = False
        await box.proven("3.0")


async def test_a_commit_that_wants_the_same_leaves_the_run_alone_and_shares_its_end(box: Box) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        server.held = True
        state = {"web": world.app("2.0")}
        first = world.waiting(await world.commit(state))
        run = await run_of(box, "2.0")
        newer = await world.commit(state, {"README": "nothing that counts"})
        second = world.waiting(newer)
        await until_looked_at(box, newer)
        assert (await box.app())["run"]["id"] == run["id"]
        server.held = False
        assert [(await answer)[1]["result"] for answer in (first, second)] == ["probation"] * 2
        await box.proven("2.0")
        assert server.requests == 2, "each version was fetched once"


async def test_from_migrate_on_the_run_ends_before_a_newer_commit(box: Box) -> None:
    world = World(box)
    await world.running()
    world.pull("hold")
    command = world.shell("echo begun >> $W/marks; while test -e $W/hold; do sleep 0.02; done")
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, migrate={"command": command})
        await world.said("marks")
        run = await run_of(box, "2.0")
        newer = await world.deploy("3.0", push=True)
        await until_looked_at(box, newer)
        assert (await box.app())["run"]["id"] == run["id"]
        world.release("hold")
        await box.proven("3.0")
    assert load.failures == []
    assert results(await box.history()) == [
        ("3.0", "succeeded"),
        ("2.0", "superseded"),
        ("1.0", "succeeded"),
    ]
    await world.only("3.0")


async def test_a_newer_release_supersedes_one_on_probation_and_the_proven_one_stays_good(box: Box) -> None:
    world = World(box)
    await world.running()
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, health={"probation": "60s"})
        await box.app_is(state="probation", current__version="2.0", run=None)
        await world.deploy("3.0", push=True, health={"probation": "60s"})
        app = await box.app_is(state="probation", current__version="3.0", run=None)
        assert app["good"]["version"] == "1.0"
        world.pull("sick-3.0")
        run = (await box.history())[0]
        assert await last_word(box, run) == "rolled-back"
        app = await box.app_is(state="degraded", current__version="1.0", run=None)
        assert app["good"]["version"] == "1.0"
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0"}
    assert results(await box.history()) == [
        ("3.0", "rolled-back"),
        ("2.0", "superseded"),
        ("1.0", "succeeded"),
    ]
    await world.only("1.0")


async def test_the_one_seen_off_does_not_take_along_who_starts_in_its_place_meanwhile(box: Box) -> None:
    world = World(box)
    await world.running(run={"command": PUPPET, "stop": {"grace": "200ms"}})
    os.kill(int(world.lines("lives")[-1].split()[1]), signal.SIGSTOP)
    _, client = await asyncio.open_connection("127.0.0.1", box.port)  # who sees 1.0 off waits for it, too
    await world.deploy("2.0", push=True, health={"probation": "60s"}, drain={"deadline": "100ms"})
    await box.app_is(state="probation", current__version="2.0", run=None)
    await world.deploy("3.0", push=True)  # takes the side of 1.0, and the client that waits there
    await box.proven("3.0")
    await world.only("3.0")
    assert [line.split()[0] for line in world.lines("lives")] == ["1.0", "2.0", "3.0"], "each started once"
    client.close()
    await client.wait_closed()


async def test_one_that_is_seen_off_and_taken_back_meanwhile_serves_on(box: Box) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        pid = int(world.lines("lives")[-1].split()[1])
        os.kill(pid, signal.SIGSTOP)
        reader, client = await asyncio.open_connection("127.0.0.1", box.port)
        await world.deploy("2.0", push=True, health={"probation": "60s"}, drain={"deadline": "100ms"})
        await box.app_is(state="probation", current__version="2.0", run=None)
        server.held = True
        await world.deploy("3.0", push=True)  # takes the side of 1.0, which is seen off: a client waits there
        await run_of(box, "3.0")
        os.kill(int(world.lines("lives")[-1].split()[1]), signal.SIGKILL)  # 2.0 goes bad
        await box.app_is(current__version="1.0")
        os.kill(pid, signal.SIGCONT)
        client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).endswith(b"1.0\n")
        client.close()
        await client.wait_closed()
        await run_of(box, "3.0")
        async with Load(box.port) as load:

            async def twenty() -> bool:
                return load.answers.get("1.0", 0) >= 20

            await box.until(twenty)
            server.held = False
            await box.proven("3.0")
        assert load.failures == []
        await world.only("3.0")


async def test_a_release_on_probation_that_goes_bad_is_seen_to_before_a_newer_one_is_fetched(
    box: Box,
) -> None:
    async with Unruly() as server:
        world = World(box, server)
        await world.running()
        await world.deploy("2.0", push=True, health={"probation": "60s"})
        await box.app_is(state="probation", current__version="2.0", run=None)
        server.held = True
        async with Load(box.port) as load:
            await world.deploy("3.0", push=True)
            await run_of(box, "3.0")
            world.pull("sick-2.0")
            app = await box.app_is(current__version="1.0")
            assert app["good"]["version"] == "1.0"
            await run_of(box, "3.0")
            server.held = False
            await box.proven("3.0")
        assert load.failures == []
        told = results(await box.history())
        assert ("2.0", "rolled-back") in told
        assert told[0] == ("3.0", "succeeded")


async def test_an_app_whose_specification_did_not_change_is_not_disturbed(box: Box) -> None:
    world = World(box)
    other = free_port()

    def state(version: str) -> dict[str, Any]:
        return {"web": world.app(version), "tool": world.app("7.0", listen=other)}

    await world.commit(state("1.0"))
    await box.start()
    await box.proven("1.0")

    async def tool_runs() -> dict[str, Any] | None:
        app = await box.app("tool")
        return app if app.get("state") == "running" else None

    child = (await box.until(tool_runs))["child"]
    await box.webhook(await world.commit(state("2.0")))
    await box.proven("2.0")
    assert (await box.app("tool"))["child"] == child
    assert len([r for r in await box.history() if r["app"] == "tool"]) == 1


@pytest.mark.parametrize("moment", ["fetch", "migrate"])
async def test_an_app_that_is_removed_in_the_middle_of_a_run_goes_as_soon_as_it_may(
    box: Box, moment: str
) -> None:
    async with Unruly() as server:
        world = World(box, server)
        other = free_port()
        tool = world.app("7.0", listen=other)
        await world.commit({"web": world.app("1.0"), "tool": tool})
        await box.start()
        await box.proven("1.0")
        parts: dict[str, Any] = {}
        if moment == "migrate":
            world.pull("hold")
            text = "echo begun >> $W/marks; while test -e $W/hold; do sleep 0.02; done"
            parts["migrate"] = {"command": world.shell(text)}
        server.held = moment == "fetch"
        await box.webhook(await world.commit({"web": world.app("2.0", **parts), "tool": tool}))
        await run_of(box, "2.0")
        if moment == "migrate":
            await world.said("marks")
        commit = await world.commit({"tool": tool})
        waiting = world.waiting(commit)
        await until_looked_at(box, commit)
        if moment == "migrate":
            world.release("hold")
        status, answer = await waiting
        assert (status, answer["result"]) == (200, "succeeded")
        assert "web" not in (await box.status())["apps"]
        await world.only("7.0")
        await world.tidy()


async def test_removed_and_wanted_again_at_once_leaves_nobody_waiting(box: Box) -> None:
    world = World(box)
    await world.running()
    world.pull("stubborn-1.0")  # so that the removal takes a while
    both = {"web": world.app("2.0"), "tool": world.app("7.0", listen=free_port())}
    gone = await world.commit({"tool": both["tool"]})
    first = world.waiting(gone)
    await until_looked_at(box, gone)
    again = await world.commit(both)
    second = world.waiting(again)
    await until_looked_at(box, again)
    world.release("stubborn-1.0")
    assert (await first)[1]["result"] in ("succeeded", "superseded", "probation")
    assert (await second)[1]["result"] in ("succeeded", "probation")
    await box.proven("2.0")
    await world.only("2.0", "7.0")
