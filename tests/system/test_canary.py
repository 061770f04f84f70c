"""A canary on the real agent: a share of the clients first, then all of them or none."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import aiohttp
import pytest

from tests.kit.box import Box, Load
from tests.kit.operator import Operator

QUICK = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "300ms"}
SHORT: dict[str, Any] = {"health": QUICK, "canary": {"percent": 30, "for": "1500ms"}}
LONG: dict[str, Any] = {"health": QUICK, "canary": {"percent": 30, "for": "10m"}}


@pytest.fixture
def operator(box: Box) -> Operator:
    return Operator(box)


async def first(box: Box, **parts: Any) -> None:
    """Version 1.0 runs and has proved itself; a first start has no canary."""
    await box.deploy("1.0", **{"health": QUICK, **parts})
    await box.start()
    await box.proven("1.0")


async def in_canary(box: Box, version: str = "2.0", percent: int = 30) -> dict[str, Any]:
    app = await box.app_is(
        state="canary", wanted__version=version, run__phase="canary", canary_percent=percent
    )
    assert (app["serving"], app["gate"], app["current"]["version"]) == (True, "canary", "1.0")
    return app


async def answered(load: Load, version: str, count: int = 20) -> None:
    """Until that many more answers came from this version."""
    enough = load.answers.get(version, 0) + count
    async with asyncio.timeout(20):
        while load.answers.get(version, 0) < enough:
            await asyncio.sleep(0.01)


async def gone_back(box: Box, reason: str) -> dict[str, Any]:
    app = await box.app_is(
        state="degraded",
        current__version="1.0",
        run=None,
        canary_percent=None,
        last_run__result="rolled-back",
    )
    assert app["last_failure"]["reason"] == reason
    assert {c["type"]: c["status"] for c in app["conditions"]}["Quarantined"] == "True"
    return app


async def replaced(box: Box, agent: int) -> bool:
    """Whether another agent answers."""
    try:
        return await box.agent_pid() != agent
    except (OSError, aiohttp.ClientError):
        return False


def steps(run: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["result"] for step in run["steps"]}


@pytest.mark.parametrize("socket", ["fd", "relay"])
async def test_a_canary_that_stays_well_is_switched_to_and_loses_nothing(box: Box, socket: str) -> None:
    await first(box, socket=socket)
    async with Load(box.port) as load:
        commit = await box.deploy("2.0", socket=socket, **SHORT)
        await box.webhook(commit)
        app = await in_canary(box)
        assert (app["run"]["steps"][-3]["name"], app["run"]["steps"][-3]["reason"]) == (
            "canary", "30 % of new connections first",
        )  # fmt: skip
        assert 'emptybox_canary_percent{app="web"} 30.0' in await box.metrics()
        await answered(load, "2.0")
        await answered(load, "1.0")
        await box.proven("2.0")
        await answered(load, "2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert steps((await box.history())[0])["canary"] == "succeeded"
    assert 'emptybox_canary_percent{app="web"} 0.0' in await box.metrics()


async def test_a_share_is_a_share(box: Box) -> None:
    await first(box)
    await box.deploy("2.0", push=True, **{**LONG, "canary": {"percent": 10, "for": "10m"}})
    await in_canary(box, percent=10)
    async with Load(box.port, lanes=8) as load:
        while load.total < 2000:
            await asyncio.sleep(0.01)
    assert load.failures == []
    assert 100 * load.answers["2.0"] / load.total == pytest.approx(10, abs=4)


@pytest.mark.parametrize("socket", ["fd", "relay"])
async def test_a_version_that_sickens_in_its_canary_is_taken_back_and_loses_nothing(
    box: Box, socket: str
) -> None:
    await first(box, socket=socket)
    async with Load(box.port) as load:
        commit = await box.deploy("2.0", "sickens", socket=socket, **LONG)
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"], answer["failure"]["reason"]) == (
            409, "rolled-back", "CanaryFailed",
        )  # fmt: skip
        app = await gone_back(box, "CanaryFailed")
        await answered(load, "1.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert "with 30 % of new connections: ProbeFailed" in app["last_failure"]["message"]
    assert "error: the database pool is exhausted" in app["last_failure"]["log"]
    canary = next(s for s in (await box.history())[0]["steps"] if s["name"] == "canary")
    assert (canary["result"], canary["undone"], canary["failure"]["reason"]) == (
        "failed",
        True,
        "CanaryFailed",
    )


async def test_a_version_that_crashes_in_its_canary_costs_only_what_it_had_accepted(box: Box) -> None:
    await first(box)
    async with Load(box.port) as load:
        await box.deploy("2.0", "crashes", push=True, **LONG)
        app = await gone_back(box, "CanaryFailed")
        await answered(load, "1.0")
    assert load.failures == []  # it ends between two requests, and has none accepted then
    assert "ChildExited" in app["last_failure"]["message"]
    assert "fatal: out of cheese" in app["last_failure"]["log"]


async def test_an_operator_promotes_a_canary(box: Box, operator: Operator) -> None:
    await first(box)
    assert (await operator("promote", "web")).code == 4
    assert (await operator("promote", "wbe")).code == 2
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **LONG)
        await in_canary(box)
        assert "30 % of new connections to the new version" in (await operator("status")).out
        told = await operator("promote", "web")
        assert told.code == 0, told
        await box.proven("2.0")
    assert load.failures == []
    run = (await box.history())[0]
    assert (run["result"], steps(run)["canary"]) == ("succeeded", "succeeded")
    assert [m["detail"] for m in run["marks"] if m["name"] == "promote"] == [f"by uid {os.getuid()}"]
    told = await operator("promote", "web")
    assert told.code == 4
    assert "no canary" in told.err


async def test_an_operator_aborts_a_canary_and_retry_begins_it_anew(box: Box, operator: Operator) -> None:
    await first(box)
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **LONG)
        await in_canary(box)
        await answered(load, "2.0")
        told = await operator("abort", "web")
        assert told.code == 0, told
        await gone_back(box, "OperatorAbort")
        told = await operator("sync")
        assert (told.code, "OperatorAbort" in told.out) == (1, True)
        assert (await operator("abort", "web")).code == 4
        assert (await operator("retry", "web", "--no-wait")).code == 0
        await in_canary(box)
        await answered(load, "2.0")
        assert (await operator("promote", "web", "--json")).json["result"] == "succeeded"
        await box.proven("2.0")
    assert load.failures == []


async def test_a_newer_specification_ends_a_canary_and_is_followed(box: Box) -> None:
    await first(box)
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **LONG)
        await in_canary(box)
        await answered(load, "2.0")
        await box.deploy("3.0", push=True, **SHORT)
        await in_canary(box, "3.0")
        await box.proven("3.0")
        await answered(load, "3.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0"}
    assert [run["result"] for run in await box.history()] == ["succeeded", "cancelled", "succeeded"]


async def test_after_a_migration_a_newer_specification_waits_for_the_canary(
    box: Box, operator: Operator
) -> None:
    await first(box)
    await box.deploy("2.0", push=True, migrate={"command": ["true"]}, **LONG)
    await in_canary(box)
    await box.deploy("3.0", push=True, health=QUICK)

    async def heard() -> bool:
        return bool((await box.status())["source"]["running"])

    await box.until(heard)
    await in_canary(box)
    assert (await operator("promote", "web", "--no-wait")).code == 0
    await box.proven("3.0")
    runs = [(run["version"], run["result"]) for run in await box.history()]
    assert [version for version, _ in runs] == ["3.0", "2.0", "1.0"]
    assert runs[1][1] in ("superseded", "succeeded")  # as its probation was shorter or longer than the run


async def test_kill_9_of_the_agent_in_a_canary_loses_nothing_and_the_canary_begins_anew(box: Box) -> None:
    await first(box)
    child = (await box.app())["child"]["pid"]
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, **LONG)
        await in_canary(box)
        await answered(load, "2.0")
        agent = await box.agent_pid()
        os.kill(agent, signal.SIGKILL)
        await box.until(lambda: replaced(box, agent))
        await in_canary(box)
        await answered(load, "2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert [run["result"] for run in await box.history()] == ["running", "interrupted", "succeeded"]
    os.kill(child, 0)  # the child that served is the same


async def test_when_agent_and_old_version_die_in_a_canary_the_old_one_is_started_again(box: Box) -> None:
    await first(box)
    old = (await box.app())["child"]["pid"]
    await box.deploy("2.0", push=True, **LONG)
    await in_canary(box)
    agent = await box.agent_pid()
    os.kill(agent, signal.SIGKILL)
    os.kill(old, signal.SIGKILL)
    await box.until(lambda: replaced(box, agent))
    await in_canary(box)
    async with Load(box.port) as load:
        await answered(load, "1.0")
        await answered(load, "2.0")
    assert load.failures == []


async def test_an_orderly_end_of_the_agent_ends_a_canary_in_order(box: Box) -> None:
    await first(box)
    await box.deploy("2.0", push=True, **LONG)
    await in_canary(box)
    assert await box.stop() == 0
    assert {f"web | version {version} ends" for version in ("1.0", "2.0")} <= set(box.output)


async def test_when_the_old_version_dies_in_a_canary_the_new_one_serves(box: Box) -> None:
    await first(box)
    old = (await box.app())["child"]["pid"]
    await box.deploy("2.0", push=True, **LONG)
    await in_canary(box)
    os.kill(old, signal.SIGKILL)
    await box.proven("2.0")
    assert (await box.history())[0]["result"] == "succeeded"
