"""A disk that is full, has no inodes, or is read-only: the app serves on, also over crashes of it and of
the agent; everybody is told; and all goes on by itself once the disk is well."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.world import World

pytestmark = pytest.mark.root

SIZES = {"full": "size=3m", "no inodes": "size=8m,nr_inodes=400", "read-only": "size=8m"}


@contextmanager
def disk(directory: Path, options: str) -> Iterator[None]:
    """A small file system of its own at a directory."""
    directory.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        while (
            subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True).returncode == 0
        ):
            pass


def ail(data: Path, fault: str) -> None:
    """Make it so. Read-only is a mount above: what is open already can be written on."""
    if fault == "read-only":
        subprocess.run(["mount", "--bind", str(data), str(data)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(data)], check=True)
        return
    filler = data / "filler"
    filler.mkdir()
    if fault == "no inodes":
        with suppress(OSError):
            for number in range(1000):
                (filler / str(number)).touch()
        return
    with (filler / "bytes").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def heal(data: Path, fault: str) -> None:
    """Take the cause away."""
    if fault == "read-only":
        subprocess.run(["umount", "-l", str(data)], check=True)
    else:
        subprocess.run(["rm", "-r", str(data / "filler")], check=True)


@pytest.mark.parametrize("fault", list(SIZES))
async def test_the_app_serves_and_the_agent_answers_whatever_ails_the_disk(
    tmp_path: Path, fault: str
) -> None:
    data = tmp_path / "data"
    with disk(data, SIZES[fault]):
        async with Box(tmp_path) as box:
            world = World(box)
            await world.running()
            ail(data, fault)
            status, answer = await box.webhook(await world.deploy("2.0"), wait=True)
            assert (status, answer["result"]) == (409, "failed")
            await world.crash()
            await box.app_is(state="running", current__version="1.0")
            await box.serving("1.0")
            serving = (await box.app())["child"]["pid"]
            async with Load(box.port) as load:
                before = await box.agent_pid()
                await world.kill_agent()

                async def next_one() -> bool:
                    status = await _status(box)
                    web = status.get("apps", {}).get("web", {})
                    return bool(web.get("child")) and status["agent"]["pid"] != before

                await box.until(next_one)
                app = await box.app()
                assert (app["child"]["pid"], app["current"]["version"]) == (serving, "1.0")
                if fault != "no inodes":  # the dead agent's own inodes are enough for the next one
                    told = await box.status()
                    (writable,) = [c for c in told["conditions"] if c["type"] == "JournalWritable"]
                    reason = {"full": "DiskFull", "read-only": "DiskReadOnly"}[fault]
                    assert (writable["status"], writable["reason"]) == ("False", reason)
                    assert "journal cannot be" in told["paused"]["message"]
                heal(data, fault)
                await box.proven("2.0")
            assert load.failures == []
            assert set(load.answers) == {"1.0", "2.0"}
            assert (await box.status())["paused"] is None


async def _status(box: Box) -> dict[str, Any]:
    try:
        return await box.status()
    except OSError:  # no agent just now
        return {}
