"""Nobody is to blame: what both versions depend on is away. And a first start with nothing to go back to."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from tests.kit.box import Box, Load
from tests.kit.world import World


def condition(app: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next((c for c in app["conditions"] if c["type"] == kind), {"status": None})
    return found


async def has(box: Box, kind: str, status: str) -> dict[str, Any]:
    """Wait until a condition has this status."""

    async def there() -> dict[str, Any] | None:
        app = await box.app()
        return app if app and condition(app, kind)["status"] == status else None

    found: dict[str, Any] = await box.until(there)
    return found


async def ended(box: Box, *expected: tuple[str, str], after: int = 0) -> None:
    """Wait until the newest runs, `after` so many newer ones, are these: version and result."""

    async def there() -> bool:
        runs = [(run["version"], run["result"]) for run in await box.history()]
        return runs[after : after + len(expected)] == list(expected)

    await box.until(there)


# -- the environment ----------------------------------------------------------------------------------


async def test_a_new_version_that_fails_like_the_old_one_is_not_set_aside_but_tried_again(box: Box) -> None:
    world = World(box)
    await world.running()
    async with Load(box.port) as load:
        world.pull("sick")
        commit = await world.deploy("2.0", health={"deadline": "2s"})
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed")
        app = await has(box, "EnvironmentFailing", "True")
        assert "same probe" in condition(app, "EnvironmentFailing")["message"]
        assert condition(app, "Quarantined")["status"] != "True"
        assert 'emptybox_app_environment_failing{app="web"} 1.0' in await box.metrics()
        world.release("sick")
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert condition(await box.app(), "EnvironmentFailing")["status"] == "False"
    await ended(box, ("2.0", "succeeded"))


async def test_a_restart_swap_that_fails_like_the_old_version_serves_the_old_one_and_tries_again(
    box: Box,
) -> None:
    world = World(box)
    await world.running(swap="restart", health={"deadline": "2s"})
    world.pull("sick")
    commit = await world.deploy("2.0", swap="restart", health={"deadline": "2s"})
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "rolled-back")
    app = await has(box, "EnvironmentFailing", "True")
    assert app["current"]["version"] == "1.0"
    assert await box.get() == (200, "1.0\n")
    assert condition(app, "Quarantined")["status"] != "True"
    world.release("sick")
    await box.proven("2.0")


async def test_on_probation_a_failing_environment_changes_nothing_and_begins_the_time_anew(box: Box) -> None:
    world = World(box)
    await world.running()
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, health={"probation": "3s"})
        await box.app_is(state="probation", current__version="2.0", run=None)
        world.pull("sick")
        app = await has(box, "EnvironmentFailing", "True")
        assert app["current"]["version"] == "2.0"
        assert condition(app, "Quarantined")["status"] != "True"
        world.release("sick")
        await has(box, "EnvironmentFailing", "False")
        await box.proven("2.0")
    assert load.failures == []
    await ended(box, ("2.0", "succeeded"), ("1.0", "succeeded"))


async def test_on_probation_only_the_new_version_sick_after_all_is_rolled_back_when_that_is_seen(
    box: Box,
) -> None:
    """First both fail; then the environment is back, and the new version still fails."""
    world = World(box)
    await world.running()
    await world.deploy("2.0", push=True, health={"probation": "300ms"})
    await box.app_is(current__version="2.0", run=None)
    world.pull("sick-2.0")
    world.pull("sick")
    await has(box, "EnvironmentFailing", "True")
    world.release("sick")
    app = await has(box, "Quarantined", "True")
    assert app["current"]["version"] == "1.0"
    assert app["last_failure"]["reason"] == "ProbeFailed"
    await ended(box, ("2.0", "rolled-back"))


async def test_a_crash_on_probation_while_the_environment_fails_goes_back_without_setting_aside(
    box: Box,
) -> None:
    world = World(box)
    await world.running()
    await world.deploy("2.0", push=True, health={"probation": "60s", "failures": 1000})
    await box.app_is(state="probation", current__version="2.0", run=None)
    world.pull("sick")
    await world.crash()
    app = await has(box, "EnvironmentFailing", "True")
    assert condition(app, "Quarantined")["status"] != "True"
    await box.app_is(current__version="1.0")
    assert await box.get() == (200, "1.0\n")
    world.release("sick")
    await box.app_is(current__version="2.0", state="probation")
    await ended(box, ("2.0", "rolled-back"), after=1)


async def test_a_new_version_that_turns_sick_while_the_old_one_drains_is_rolled_back_after_it(
    box: Box,
) -> None:
    world = World(box)
    await world.running()
    old = (await box.app())["child"]["pid"]
    os.kill(old, signal.SIGSTOP)
    try:
        _, waiting = await asyncio.open_connection("127.0.0.1", box.port)  # in its queue, so it drains
        await world.deploy("2.0", push=True, health={"probation": "10m"}, drain={"deadline": "5m"})
        await box.app_is(current__version="2.0")
        world.pull("sick-2.0")
        await has(box, "Healthy", "False")
        waiting.close()
    finally:
        os.kill(old, signal.SIGCONT)
    await box.app_is(current__version="1.0", run=None)
    await ended(box, ("2.0", "rolled-back"))


# -- the first start ----------------------------------------------------------------------------------


async def test_a_first_start_that_fails_tries_earlier_distinct_specifications(box: Box) -> None:
    world = World(box)
    fast = {"deadline": "300ms"}
    await world.deploy("1.0")
    await world.deploy("2.0", health=fast)
    state = {"web": world.app("2.0", health=fast)}
    await world.commit(state, {"README": "the same again"})
    commit = await world.deploy("3.0", health=fast)
    for version in ("2.0", "3.0"):
        world.pull(f"sick-{version}")
    await box.start()
    app = await box.app_is(state="degraded", current__version="1.0", good__version="1.0", run=None)
    assert condition(app, "Degraded")["status"] == "True"
    assert app["wanted"]["version"] == "3.0"
    assert app["wanted"]["commit"] == commit
    told = await box.status()
    assert told["source"]["last_sync"]["result"] == "failed"
    assert told["source"]["last_success"] is None
    await ended(box, ("1.0", "succeeded"), ("2.0", "failed"), ("3.0", "failed"))
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "failed")
    await world.deploy("4.0", push=True)
    app = await box.proven("4.0")
    assert condition(app, "Degraded")["status"] == "False"
    await world.only("4.0")
    await world.tidy()


async def test_a_first_start_without_anything_earlier_shows_the_page_and_waits_for_a_better_one(
    box: Box,
) -> None:
    world = World(box)
    world.pull("sick-1.0")
    await world.deploy("1.0", health={"deadline": "300ms"})
    await box.start()
    app = await box.app_is(state="failed", run=None)
    assert app["last_failure"]["reason"] == "ProbeFailed"
    assert app["current"] is None
    assert (await box.get())[0] == 503
    await world.only()
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True)
        await box.serving("2.0")
        before = load.answers.get("503", 0)
        await box.proven("2.0")
        assert load.answers.get("503", 0) - before <= 4, "nobody else answers once it serves"
    assert load.failures == []
    await world.only("2.0")


async def test_a_first_release_that_crashes_again_and_again_on_probation_is_given_up(box: Box) -> None:
    world = World(box)
    restart = {"backoff": "20ms", "backoff_max": "50ms"}
    run = {"command": world.app("0")["run"]["command"], "restart": restart}
    await world.deploy("1.0")
    await world.deploy("2.0", run=run, health={"probation": "60s"})
    await box.start()
    for _ in range(3):
        await box.serving("2.0")
        await box.app_is(state="probation", run=None)  # it counts from then on
        await world.crash()
    app = await box.app_is(state="degraded", current__version="1.0", good__version="1.0")
    assert condition(app, "Quarantined")["reason"] == "ChildExited"
    await ended(box, ("1.0", "succeeded"), ("2.0", "failed"))


async def test_a_first_release_that_cannot_be_started_again_is_not_proven_by_time(box: Box) -> None:
    world = World(box)
    restart = {"backoff": "20ms", "backoff_max": "50ms", "budget": 100}
    run = {"command": world.app("0")["run"]["command"], "restart": restart}
    await world.deploy("1.0", run=run, health={"probation": "3s", "deadline": "2s"})
    await box.start()
    await box.serving("1.0")
    world.pull("sick-1.0")
    await world.crash()
    app = await has(box, "Quarantined", "True")
    assert app["good"] is None
    await ended(box, ("1.0", "failed"))
    assert (await box.get())[0] == 503
