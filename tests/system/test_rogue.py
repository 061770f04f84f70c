"""An app that does all that apps should not do: the agent and the other apps do not notice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.kit import sandbox
from tests.kit.box import Box, Load

MEBIBYTE = 1 << 20
ROGUE = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(50):
    if os.fork() == 0:
        os._exit(0)  # never waited for
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
files = []
try:
    while len(files) < 10_000:
        files.append(open("/dev/null"))
except OSError:
    pass
hog = b"x" * {100 * MEBIBYTE}
for number in range(50_000):
    print("flood", number, "." * 60)
sys.stdout.flush()
time.sleep(1000)
"""


def memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))


def of_box(box: Box, mark: str) -> list[int]:
    """Processes with this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_rogue_is_borne_by_the_agent_and_its_neighbour_and_leaves_nobody_behind(box: Box) -> None:
    sandbox.as_root()
    state = box.state("1.0")
    await box.commit(state)
    await box.start()
    await box.proven("1.0")
    agent = await box.agent_pid()
    before = memory(agent)
    mark = f"ROGUE={box.directory}"
    rogue: dict[str, Any] = {
        "version": "1",
        "run": {
            "command": [sys.executable, "-S", "-c", ROGUE],
            "stop": {"grace": "1s"},
            "isolation": {"namespaces": ["pid"]},
        },
        "env": {"ROGUE": str(box.directory)},
        "health": {"alive": "2s", "deadline": "30s", "probation": "500ms"},
    }
    async with Load(box.port) as load:
        await box.webhook(await box.commit({**state, "apps": {**state["apps"], "rogue": rogue}}))
        await box.app_is("rogue", state="running", good__version="1")
        assert len(of_box(box, mark)) >= 2  # itself, and who went into the background
        assert memory(agent) - before < 10 * MEBIBYTE
        await box.webhook(await box.commit(state))

        async def gone() -> bool:
            return not of_box(box, mark)

        await box.until(gone)
    assert load.failures == []
    assert await box.agent_pid() == agent
    assert os.path.exists(f"/proc/{agent}")
