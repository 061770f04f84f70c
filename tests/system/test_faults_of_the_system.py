"""A system that fails: files that cannot be read or written, no more processes, a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.kit.box import Box, Load
from tests.kit.watching import Watch, condition
from tests.kit.world import World

PIDS = Path("/sys/fs/cgroup/pids")  # of version 1
YEAR = 365.25 * 86400  # seconds
JUMPS = (10, -60, 0)  # years: far ahead, before 1970, and back


def missing(what: str) -> None:
    """Skip the test, but fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"{what} missing")


async def unwell(box: Box) -> dict[str, str]:
    """Types and reasons of the agent's conditions that are False; none while there is no agent."""
    try:
        told = await box.status()
    except aiohttp.ClientError:
        return {}
    return {c["type"]: c["reason"] for c in told["conditions"] if c["status"] == "False"}


# -- a file that fails ---------------------------------------------------------------------------------


def preload(box: Box, source: str, **variables: object) -> None:
    """Have keeper and agent run with a library of tests; what they start has another environment."""
    if shutil.which("gcc") is None:
        missing("gcc")
    library = box.directory / "preloaded.so"
    path = Path(__file__).with_name(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, path, "-ldl"], check=True)
    given = [f"{name}={value}" for name, value in variables.items()]
    box.wrapper = ["env", f"LD_PRELOAD={library}", *given]


@pytest.fixture
def failing(box: Box, tmp_path: Path) -> Path:
    """What stands in this file names files that fail for keeper and agent, while it is there."""
    control = tmp_path / "failing"
    preload(box, "failing_files.c", FAILING=control)
    return control


async def test_a_journal_that_cannot_be_read_or_written(box: Box, failing: Path) -> None:
    world = World(box)
    await world.running()
    async with Load(box.port) as load, Watch(box, "the journal returns EIO", gaps=True) as watch:
        failing.write_text("/data/journal.db")
        await world.deploy("2.0", push=True)

        async def named() -> bool:
            return "JournalWritable" in await unwell(box)

        await box.until(named)
        await world.kill_agent()
        await box.until(named)
        assert watch.versions == {"1.0"}
        failing.unlink()
        await box.proven("2.0")
    assert load.failures == []


async def test_a_store_that_cannot_be_written(box: Box, failing: Path) -> None:
    world = World(box)
    await world.running()
    async with Load(box.port) as load, Watch(box, "the store returns EIO", gaps=True) as watch:
        failing.write_text("/data/store/tmp")
        await world.deploy("2.0", push=True)

        async def named() -> bool:
            return bool((await box.app())["last_failure"])

        await box.until(named)
        assert watch.versions == {"1.0"}
        failing.unlink()
        await box.proven("2.0")
    assert load.failures == []


# -- no more processes ---------------------------------------------------------------------------------


@contextmanager
def group() -> Iterator[Path]:
    """A control group for processes, left empty."""
    path = PIDS / f"emptybox-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError:
        missing("control groups of version 1, for processes")
    try:
        yield path
    finally:
        path.rmdir()


@pytest.mark.root
async def test_no_process_and_no_thread_can_be_started_for_a_while(box: Box) -> None:
    world = World(box)
    with group() as pids:
        await world.running()
        assert box.process is not None
        for pid in (box.process.pid, await box.agent_pid()):
            (pids / "cgroup.procs").write_text(str(pid))
        async with Load(box.port) as load, Watch(box, "fork is refused", gaps=True) as watch:
            (pids / "pids.max").write_text("1")
            await world.deploy("2.0", push=True)
            app = await box.app_is(last_failure__reason="NoResources")
            assert condition(app, "Quarantined")["status"] != "True"
            await world.kill_agent()

            async def refused() -> bool:
                return any("the agent cannot be started" in line for line in box.output)

            await box.until(refused)
            assert watch.versions == {"1.0"}
            (pids / "pids.max").write_text("max")
            await box.proven("2.0")
        assert load.failures == []

        (pids / "pids.max").write_text("1")
        await world.crash()
        await box.app_is(state="maintenance")
        (pids / "pids.max").write_text("max")
        await box.proven("2.0")
        await box.serving("2.0")
        await box.stop()


# -- the clock -----------------------------------------------------------------------------------------


async def test_the_clock_jumps_forth_and_back_by_years(box: Box, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(8))
    preload(box, "jumping_clock.c", AHEAD=clock)
    world = World(box)
    await world.running()
    async with Load(box.port) as load, Watch(box, "the clock jumps", gaps=True):
        for number, jump in enumerate(JUMPS, start=2):
            with clock.open("r+b") as file:  # in place: it is mapped
                file.write(struct.pack("=q", round(jump * YEAR)))
            await world.deploy(f"{number}.0", push=True)
            await box.proven(f"{number}.0")
            assert 0 < (await box.status())["agent"]["uptime_seconds"] < 1000
            if number == 3:
                before = await box.agent_pid()
                await world.kill_agent()
                await asyncio.wait_for(gone(before), 30)
                await box.until(box.answers)
    assert load.failures == []
    assert [run["version"] for run in await box.history()] == ["4.0", "3.0", "2.0", "1.0"]


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    while os.path.exists(f"/proc/{pid}"):
        await asyncio.sleep(0.02)
