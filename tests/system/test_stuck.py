"""An agent that hangs: its clients are served, it is replaced, and it can say where it is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.kit.box import Box, Load
from tests.kit.world import World

# The keeper as it is, but that it asks more often.
SOON = "import sys; from agent.keeper import vigil; vigil.PING = 1.0; from agent.__main__ import main; main()"


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
