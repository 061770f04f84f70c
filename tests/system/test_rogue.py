"""An app that does all that apps should not do: the agent and the other apps do not notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


FILLS = """
import time
try:
    with open("data/all-there-is", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
except OSError as error:
    print("cannot go on:", error.strerror, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data directory on a file system of 24 MiB."""
    sandbox.as_root()
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True)


async def test_who_fills_the_disk_stops_nobody_and_what_is_missing_is_told(
    small_disk: Path, box: Box
) -> None:
    def state(version: str) -> dict[str, Any]:
        rogue = {
            "version": "1",
            "run": {"command": [sys.executable, "-S", "-c", FILLS]},
            "dirs": {"state": "data"},
            "health": {"alive": "100ms", "probation": "100ms"},
        }
        good = box.state(version)
        return {**good, "apps": {**good["apps"], "rogue": rogue}}

    await box.commit(box.state("1.0"))
    await box.start()
    await box.proven("1.0")
    agent = await box.agent_pid()
    before = memory(agent)
    async with Load(box.port) as load:
        await box.webhook(await box.commit(state("1.0")))

        async def full() -> bool:
            return any("cannot go on: No space left on device" in line for line in box.output)

        await box.until(full)
        status, answer = await box.webhook(await box.commit(state("2.0")), wait=True)
        assert (status, answer["failure"]["reason"]) == (409, "DiskFull"), answer
        assert "free" in answer["failure"]["remedy"]
        served = load.total

        async def serves_on() -> bool:  # and so does /status
            return load.total > served + 50 and bool((await box.app())["serving"])

        await box.until(serves_on)
        assert (await box.app())["current"]["version"] == "1.0"
        assert memory(agent) - before < 10 * MEBIBYTE
        (small_disk / "apps/rogue/dirs/state/all-there-is").unlink()
        await box.webhook(await box.commit(box.state("2.0")))
        await box.proven("2.0")
    assert load.failures == []
    assert await box.agent_pid() == agent
