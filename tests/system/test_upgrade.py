"""`emptybox upgrade`: the agent is replaced under load, and nobody notices but the operator."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.kit.box import Box, Load
from tests.kit.world import World


async def emptybox(box: Box, *arguments: str, directory: Path | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "EMPTYBOX_DATA": str(box.data)}, cwd=directory,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_an_upgrade_under_load_keeps_the_child_and_loses_nothing(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    before = await box.agent_pid()
    async with Load(box.port) as load:
        code, said = await emptybox(box, "upgrade")
        assert code == 0, said
        assert f"(pid {before}) ->" in said
        assert (await box.proven("1.0"))["child"]["pid"] == child
        await box.deploy("2.0", push=True)
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert await box.agent_pid() != before


async def test_an_upgrade_while_a_crashed_program_starts_again_leaves_that_to_the_next_agent(
    box: Box,
) -> None:
    world = World(box)
    await world.running(health={"deadline": "60s"})
    before = await box.agent_pid()
    world.pull("late-1.0")  # it does not listen yet
    await world.crash()
    await world.said("lives", 2)
    code, said = await emptybox(box, "upgrade")
    assert code == 0, said
    assert await box.agent_pid() != before
    world.release("late-1.0")
    await box.proven("1.0")
    await world.only("1.0")


async def test_an_upgrade_to_code_that_does_not_start_is_refused_and_nothing_is_touched(
    box: Box, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    await box.deploy("1.0")
    await box.start(environment={"PYTHONPATH": str(broken)})
    await box.proven("1.0")
    before = await box.agent_pid()
    (broken / "msgspec.py").write_text("raise RuntimeError('half an installation')\n")
    code, said = await emptybox(box, "upgrade")
    assert code == 4, said
    assert "half an installation" in said
    assert await box.agent_pid() == before
    assert await box.get() == (200, "1.0\n")
