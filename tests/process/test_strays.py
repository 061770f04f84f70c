from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.process.strays import end_strays, strays

IGNORES = (
    "import os, signal; signal.signal(15, lambda *_: None); os.write(1, b'r')\nwhile True: signal.pause()"
)
LISTENS = "import os, signal; os.write(1, b'r'); signal.pause()"


async def start(code: str, box: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code,
        env={"A": "b", "EMPTYBOX_BOX": box, "Z": "z"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readexactly(1)
    return process


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[str]:
    name = f"box-{os.getpid()}-{tmp_path.name}"
    yield name
    assert strays(name, ()) == []


async def test_strays_are_found_by_the_name_of_their_box_and_ended(box: str) -> None:
    listens, ignores = await start(LISTENS, box), await start(IGNORES, box)
    other = await start(LISTENS, box + "2")
    kept = await start(LISTENS, box)
    try:
        assert strays(box, {kept.pid}) == sorted([listens.pid, ignores.pid])
        assert await end_strays(box, {kept.pid}, grace=0.1) == sorted([listens.pid, ignores.pid])
        assert (await listens.wait(), await ignores.wait()) == (-15, -9)
        assert other.returncode is None
        assert kept.returncode is None
    finally:
        for process in (other, kept):
            process.kill()
            await process.wait()


async def test_a_box_without_strays_costs_nothing_but_a_look(box: str) -> None:
    assert await end_strays(box, ()) == []
