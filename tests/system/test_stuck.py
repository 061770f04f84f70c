"""An agent that hangs: its clients are served, it is replaced, and it can say where it is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp

from tests.kit.box import Box, Load
from tests.kit.operator import Operator
from tests.kit.world import World

# The keeper as it is, but that it asks more often.
PING = "import sys; from agent.keeper import vigil; vigil.PING = {}; from agent.__main__ import main; main()"
SOON, LATE = PING.format(1.0), PING.format(60.0)


async def test_a_stopped_agent_is_replaced_and_no_request_is_lost(box: Box) -> None:
    box.module = ["-c", SOON]
    world = World(box)
    await world.running()
    serving = (await box.app())["child"]["pid"]
    pid = await box.agent_pid()
    os.kill(pid, signal.SIGUSR2)

    async def told_where_it_is() -> bool:
        return any("Thread 0x" in line for line in box.output)

    await box.until(told_where_it_is)
    async with Load(box.port) as load:
        pid = await box.agent_pid()
        os.kill(pid, signal.SIGSTOP)

        async def replaced() -> bool:
            return not Path(f"/proc/{pid}").exists()

        await box.until(replaced)
        assert any("the agent has not answered for" in line for line in box.output)
        await box.until(box.answers)
        app = await box.app_is(state="running", current__version="1.0")
        assert app["child"]["pid"] == serving
        await world.deploy("2.0", push=True)
        await box.proven("2.0")
    assert load.failures == []
    assert await replacement(box) == "AgentHung"


async def replacement(box: Box) -> str:
    """The reason of the condition that the agent was replaced; "" when it was not."""
    found = [c for c in (await box.status())["conditions"] if c["type"] == "AgentReplaced"]
    assert all(condition["status"] == "True" for condition in found)
    return found[0]["reason"] if found else ""


async def test_the_doctor_says_at_once_how_a_stopped_agent_is_and_what_its_keeper_runs(box: Box) -> None:
    box.module = ["-c", LATE]
    world = World(box)
    await world.running()
    serving, pid = (await box.app())["child"]["pid"], await box.agent_pid()
    assert box.process is not None
    keeper, doctor = box.process.pid, Operator(box)
    assert await replacement(box) == ""
    os.kill(pid, signal.SIGSTOP)
    told = await doctor("doctor", "--json")
    os.kill(pid, signal.SIGCONT)
    assert told.code == 1
    findings = {finding["subject"]: finding for finding in told.json["findings"]}
    assert f"(pid {pid}) is there and does not answer: it is stopped by a signal" in findings["agent"]["told"]
    assert f"kill -9 {pid}; neither touches what serves" in findings["agent"]["remedy"]
    assert f"pid {keeper}, for " in findings["keeper"]["told"]
    assert f"bin/web (pid {serving})" in findings["keeper"]["told"]
    assert "git" not in findings  # nothing that takes its time
    assert (await doctor("doctor")).out.count("does not answer") == 0

    await world.kill_agent()

    async def told_of() -> bool:
        try:
            return await replacement(box) == "AgentDied"
        except aiohttp.ClientError:
            return False

    await box.until(told_of)
    assert await box.get() == (200, "1.0\n")
