"""Processes that a program left behind when it ended: found, told, ended. The whole agent."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.kit.box import Box

# Starts somebody in a session of its own, who outlives it; and says who that is.
PROGRAM = "setsid sh -c 'echo $$ >> {book}; exec sleep 1000' & sleep 0.2; exec sleep 1000"


def parts(box: Box, action: str) -> dict[str, Any]:
    return {
        "artifact": None,
        "listen": None,
        "socket": None,
        "run": {"command": ["sh", "-c", PROGRAM.format(book=box.directory / "book")]},
        "health": {"alive": "500ms", "probation": "100ms"},
        "drift": {"action": action, "every": "200ms"},
    }


async def left(box: Box) -> int:
    """Who was left behind by the first program, once that is gone."""
    await box.deploy("1.0", **parts(box, "report"))
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    stray = int((box.directory / "book").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    return stray


async def told(box: Box, status: str, pid: int) -> None:
    async def said() -> bool:
        found = {c["type"]: c for c in (await box.app())["conditions"]}.get("StrayProcesses")
        return (
            found is not None
            and found["status"] == status
            and (status == "False" or str(pid) in found["message"])
        )

    await box.until(said)


async def test_what_a_program_left_behind_is_told_and_then_ended_when_that_is_wanted(box: Box) -> None:
    stray = await left(box)
    await told(box, "True", stray)
    os.kill(stray, 0)
    living = int((box.directory / "book").read_text().split()[1])
    await box.deploy("1.0", push=True, **parts(box, "repair"))
    await told(box, "False", stray)
    with pytest.raises(ProcessLookupError):
        os.kill(stray, 0)
    os.kill(living, 0)  # whoever started it lives
    assert 'emptybox_drift_total{app="web",how="repaired"} 1.0' in await box.metrics()
    assert await box.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(living, 0)
