"""A box whose memory does not hold two versions at once swaps by restart, and says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.box import Box, Load

ROOTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
HOG = "import os, runpy; hog = bytearray(120 << 20); runpy.run_path('bin/web', run_name='__main__')"


@pytest.fixture
def limited() -> Iterator[Path]:
    """A real memory cgroup of 300 MiB below this process's own (version 1, or 2 with the controller on)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, inner = line.split(":", 2)
        root = ROOTS[0] if controllers == "memory" else ROOTS[1]
        name = "memory.limit_in_bytes" if controllers == "memory" else "memory.max"
        parent = root / inner.lstrip("/")
        if controllers not in ("memory", "") or not os.access(parent, os.W_OK):
            continue
        group = parent / f"emptybox-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(300 << 20))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here (needs root and a memory controller)")


async def test_two_versions_that_do_not_fit_are_swapped_one_after_the_other(box: Box, limited: Path) -> None:
    run = {"command": [sys.executable, "-S", "-c", HOG]}
    await box.deploy("1.0", run=run)
    box.wrapper = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(limited)]
    await box.start()
    await box.proven("1.0")
    try:
        async with Load(box.port) as load:
            await box.deploy("2.0", push=True, run=run)
            app = await box.proven("2.0")
        assert load.failures == []
        assert any(c["type"] == "MemoryShort" and c["status"] == "True" for c in app["conditions"])
        stop = next(s for s in (await box.history())[0]["steps"] if s["name"] == "stop")
        assert "no memory for two" in stop["reason"]
    finally:
        await box.stop()
