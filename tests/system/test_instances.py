"""Several instances of one app behind one port: started, replaced, scaled, lost and found again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.operator import Operator

HEALTH = {"http": "/healthz", "interval": "50ms", "deadline": "20s", "probation": "300ms"}
WATCHED = {**HEALTH, "probation": "10m"}
COMMAND = [sys.executable, "-S", "bin/web"]


def parts(count: int, *, health: dict[str, str] = HEALTH, unless: str = "", **more: Any) -> dict[str, Any]:
    """An app of so many instances; the one whose number is `unless` does not run."""
    command: list[str] = COMMAND
    if unless:
        command = ["sh", "-c", f'[ "$EMPTYBOX_INSTANCE" = {unless} ] || exec "$@"; exit 9', "sh", *COMMAND]
    run = {"command": command, "instances": count, "restart": {"backoff": "50ms"}}
    return {"health": health, "run": run, **more}


def serving(app: dict[str, Any]) -> dict[int, int]:
    """Pids of those who serve, by number."""
    found = (app.get("child") or {}).get("instances", [])
    return {each["number"]: each["pid"] for each in found if each["state"] == "serving"}


async def complete(box: Box, version: str, count: int) -> dict[int, int]:
    """Until so many serve, all of this version, out of probation; their pids."""

    async def there() -> dict[int, int]:
        app = await box.app()
        found = (app.get("child") or {}).get("instances", [])
        whole = [each["state"] for each in found] == ["serving"] * count
        well = app.get("state") == "running" and {each["version"] for each in found} == {version}
        return serving(app) if whole and well and app["child"]["instances_wanted"] == count else {}

    pids: dict[int, int] = await box.until(there)
    return pids


async def answering(box: Box, count: int) -> None:
    """Until so many different instances have answered."""
    seen: set[str] = set()

    async def all_seen() -> bool:
        _, text = await box.get("/environment")
        seen.update(line for line in text.splitlines() if line.startswith("EMPTYBOX_INSTANCE="))
        return len(seen) == count

    await box.until(all_seen)


@pytest.mark.parametrize("socket", ["fd", "adopt"])
async def test_instances_share_a_port_and_are_replaced_without_a_loss(box: Box, socket: str) -> None:
    await box.deploy("1.0", **parts(4, socket=socket))
    await box.start()
    old = await complete(box, "1.0", 4)
    assert sorted(old) == [0, 1, 2, 3]
    await answering(box, 4)
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **parts(4, socket=socket))
        new = await complete(box, "2.0", 4)
        await answering(box, 4)
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert not set(new.values()) & set(old.values())
    assert 'emptybox_app_instances{app="web"} 4.0' in await box.metrics()
    (run,) = [run for run in await box.history() if run["version"] == "2.0"]
    assert [step["name"] for step in run["steps"]][-4:] == ["probe", "rollout", "switch", "drain"]


async def test_ps_and_status_tell_each_instance(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    pids = await complete(box, "1.0", 3)
    operator = Operator(box)
    rows = [row for row in (await operator("ps", "--json")).json["processes"] if row["app"] == "web"]
    assert {row["instance"]: row["pid"] for row in rows} == pids
    assert {row["state"] for row in rows} == {"serving"}
    assert sum(line.startswith("web ") for line in (await operator("ps")).out.splitlines()) == 3
    told = (await operator("status")).out
    assert all(str(pid) in told for pid in pids.values())


async def test_the_number_of_instances_follows_the_state_and_nobody_is_restarted_for_it(box: Box) -> None:
    await box.deploy("1.0", **parts(1))
    await box.start()
    (first,) = (await complete(box, "1.0", 1)).values()
    async with Load(box.port) as load:
        await box.deploy("1.0", push=True, **parts(4))
        four = await complete(box, "1.0", 4)
        await answering(box, 4)
        await box.deploy("1.0", push=True, **parts(2))
        two = await complete(box, "1.0", 2)
    assert load.failures == []
    assert set(load.answers) == {"1.0"}
    assert four[0] == first
    assert two == {number: four[number] for number in (0, 1)}
    assert [step["name"] for step in (await box.history())[0]["steps"]] == ["scale", "record"]


async def test_an_instance_that_fails_stops_the_rollout_and_the_old_ones_remain(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    old = await complete(box, "1.0", 3)
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **parts(3, unless="2"))
        app = await box.app_is(
            state="degraded", current__version="1.0", run=None, last_run__result="rolled-back"
        )
        assert app["last_failure"]["reason"] == "ChildExited"

        async def gone() -> bool:
            return [i["version"] for i in (await box.app())["child"]["instances"]] == ["1.0"] * 3

        await box.until(gone)
    assert load.failures == []
    assert serving(await box.app()) == old


async def test_more_instances_that_do_not_get_healthy_change_nothing(box: Box) -> None:
    await box.deploy("1.0", **parts(2, unless="2"))
    await box.start()
    two = await complete(box, "1.0", 2)
    await box.deploy("1.0", push=True, **parts(4, unless="2"))
    app = await box.app_is(state="degraded", run=None)
    assert app["last_failure"]["reason"] == "ChildExited"
    assert serving(app) == two


async def test_when_one_ends_the_others_serve_on_and_another_takes_its_place(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    before = await complete(box, "1.0", 3)
    async with Load(box.port) as load:
        os.kill(before[0], signal.SIGKILL)

        async def replaced() -> bool:
            after = serving(await box.app())
            return sorted(after) == [0, 1, 2] and after[0] != before[0]

        await box.until(replaced)
        await answering(box, 3)
    assert len(load.failures) <= 4, "only whom it had accepted"
    assert set(load.answers) <= {"1.0"}
    assert (await box.app())["last_failure"]["reason"] == "ChildExited"
    after = serving(await box.app())
    assert (after[1], after[2]) == (before[1], before[2])
    assert (await box.app())["gate"] == "open"


async def test_when_all_end_at_once_clients_wait_and_all_come_back(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    before = await complete(box, "1.0", 3)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    async def others() -> bool:
        after = serving(await box.app())
        return len(after) == 3 and not set(after.values()) & set(before.values())

    await box.until(others)
    assert await box.get() == (200, "1.0\n")
    await answering(box, 3)


async def test_on_probation_one_that_ends_takes_all_of_the_new_version_back(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    old = await complete(box, "1.0", 3)
    await box.deploy("2.0", push=True, **parts(3, health=WATCHED))
    new = serving(await box.app_is(state="probation", current__version="2.0"))
    assert len(new) == 3
    os.kill(new[1], signal.SIGKILL)
    app = await box.app_is(state="degraded", current__version="1.0", run=None, last_run__result="rolled-back")
    assert serving(app) == old, "they were kept warm"
    await answering(box, 3)


async def test_instances_outlive_the_agent_and_are_known_to_the_next(box: Box) -> None:
    await box.deploy("1.0", **parts(3))
    await box.start()
    before = await complete(box, "1.0", 3)
    agent = await box.agent_pid()
    async with Load(box.port) as load:
        os.kill(agent, signal.SIGKILL)
        await asyncio.sleep(0)
        await box.until(box.answers)
        assert await complete(box, "1.0", 3) == before
        await answering(box, 3)
        await box.deploy("1.0", push=True, **parts(2))
        assert await complete(box, "1.0", 2) == {number: before[number] for number in (0, 1)}
    assert load.failures == []


async def test_instances_of_a_program_without_a_port_are_kept_as_well(box: Box) -> None:
    run = {"command": ["sleep", "1000"], "instances": 3}
    worker: dict[str, Any] = {
        "listen": None,
        "socket": None,
        "health": {"alive": "50ms", "probation": "100ms"},
    }
    await box.deploy("1.0", **worker, run=run)
    await box.start()
    assert sorted(await complete(box, "1.0", 3)) == [0, 1, 2]
    await box.deploy("1.0", push=True, **worker, run={**run, "instances": 1})
    assert sorted(await complete(box, "1.0", 1)) == [0]
