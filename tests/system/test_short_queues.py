"""A host whose net.core.somaxconn is below what the agent asks for: said once, with what to do."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from agent.traffic.slots import BACKLOG
from tests.kit import sandbox
from tests.system.short_queues import LIMIT


@pytest.mark.root
async def test_a_host_that_lets_few_clients_wait_is_told_of_and_swaps_all_the_same(tmp_path: Path) -> None:
    sandbox.as_root()
    process = await asyncio.create_subprocess_exec(
        sandbox.tool("unshare"), "--net", "--",
        sys.executable, "-m", "tests.system.short_queues", str(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-4000:]
    (condition,) = [found for found in json.loads(out) if found["type"] == "BacklogLimited"]
    assert (condition["status"], condition["reason"]) == ("True", "SomaxconnTooLow")
    assert f"only {LIMIT} clients can wait" in condition["message"]
    assert f"Raise net.core.somaxconn to {BACKLOG}" in condition["message"]
