"""`socket: relay` through the whole agent: a program that binds $PORT, swapped without a loss."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.kit.box import Box, Load


async def variables(box: Box) -> dict[str, str]:
    """The environment of the child that serves."""
    status, text = await box.get("/environment")
    assert status == 200
    return dict(line.split("=", 1) for line in text.splitlines())


async def test_a_relayed_app_is_swapped_under_load_and_no_new_connection_is_lost(box: Box) -> None:
    await box.deploy("1.0", socket="relay")
    await box.start()
    await box.proven("1.0")
    ports = {(await variables(box))["PORT"]}
    async with Load(box.port) as load:
        for version in ("2.0", "3.0", "4.0"):
            await box.deploy(version, push=True, socket="relay")
            await box.serving(version)
            await box.proven(version)
            ports.add((await variables(box))["PORT"])
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0", "4.0"}
    assert str(box.port) not in ports and len(ports) == 4


async def test_each_named_port_has_a_variable(box: Box) -> None:
    await box.deploy("1.0", socket="relay", listen={"http": box.port})
    await box.start()
    await box.proven("1.0")
    found = await variables(box)
    assert found["PORT"] == found["PORT_HTTP"] != str(box.port)
    assert "LISTEN_FDS" not in found


async def test_a_relayed_version_that_sickens_is_rolled_back_without_a_loss(box: Box) -> None:
    await box.deploy("1.0", socket="relay")
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        health = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "20s"}
        await box.deploy("2.0", "sickens", push=True, health=health, socket="relay")
        await box.serving("2.0")
        await box.serving("1.0")
        await box.app_is(state="degraded", current__version="1.0", run=None)
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}


async def test_clients_of_a_crashed_relayed_child_are_held_for_its_restart(box: Box) -> None:
    await box.deploy("1.0", socket="relay")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    os.kill(child, signal.SIGKILL)

    async def gone() -> bool:
        return not Path(f"/proc/{child}").exists()

    await box.until(gone)  # until then it takes connections, and they end with it
    async with Load(box.port) as load:

        async def another() -> Any:
            app = await box.app()
            return app["child"] and app["child"]["pid"] != child and app["state"] == "running"

        async def answered() -> bool:
            return load.total > 0

        await box.until(another)
        await box.until(answered)
    assert load.failures == []
    assert set(load.answers) == {"1.0"}


async def test_kill_9_of_the_agent_ends_relayed_connections_and_the_next_agent_relays_again(box: Box) -> None:
    await box.deploy("1.0", socket="relay")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    port = (await variables(box))["PORT"]
    agent = await box.agent_pid()
    async with Load(box.port, lanes=4) as load:
        os.kill(agent, signal.SIGKILL)

        async def another() -> bool:
            try:
                return await box.agent_pid() != agent
            except Exception:
                return False

        await box.until(another)
        assert (await box.proven("1.0"))["child"]["pid"] == child
        await box.serving("1.0")
    assert len(load.failures) <= 4  # one a lane: those that were in the agent's hands
    assert set(load.answers) == {"1.0"}
    assert (await variables(box))["PORT"] == port


async def test_an_app_moves_from_a_handed_socket_to_the_relay_and_back(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", push=True, socket="relay")
    await box.proven("2.0")
    await box.deploy("3.0", push=True)
    await box.proven("3.0")
    assert await box.get() == (200, "3.0\n")
