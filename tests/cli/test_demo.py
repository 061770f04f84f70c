"""The demo, run as a user runs it: all of it happens, and nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.kit.git_server import need_git

DEADLINE = 100.0


@asynccontextmanager
async def demo(directory: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`emptybox demo` with its temporary directory below `directory`; killed if it is still there after."""
    need_git()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", "demo", *words,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(directory), "EMPTYBOX_POLL": "nonsense of the user's"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def left_of(directory: Path) -> list[str]:
    """Files in `directory`, and processes that live there or name it."""
    found = [str(path) for path in directory.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is none of ours
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in words or str((process / "cwd").readlink()).startswith(str(directory)):
                found.append(f"{process.name}: {words}")
    return found


def listens(url: str) -> bool:
    """Whether somebody listens at a URL's address."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_the_demo_shows_two_versions_going_live_and_a_broken_one_taken_back(tmp_path: Path) -> None:
    async with demo(tmp_path, "--json") as process:
        out, _ = await process.communicate()
    told = json.loads(out)
    assert process.returncode == 0, told
    assert told["ok"]
    assert {check["name"]: check["detail"] for check in told["checks"] if not check["ok"]} == {}
    results = {run["version"]: run["results"] for run in told["versions"]}
    assert results == {
        "v1": ["probation", "succeeded"],
        "v2": ["probation", "succeeded"],
        "v3": ["probation", "rolled-back"],
    }
    assert all(0 < run["webhook_to_live_ms"] < run["push_to_live_ms"] for run in told["versions"])
    assert {"resolve", "fetch", "verify", "unpack", "start", "probe", "switch"} <= {
        step["name"] for step in told["versions"][0]["steps"]
    }
    assert told["requests"]["lost"] == {}
    assert set(told["requests"]["answered"]) == {"v1", "v2", "v3"}
    assert not listens(told["status_url"])
    assert left_of(tmp_path) == []


async def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        assert process.stdout is not None
        seen = b""
        while b"v1 is live" not in seen:
            line = await process.stdout.readline()
            assert line, seen.decode()
            seen += line
        assert left_of(tmp_path) != []
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130
    assert left_of(tmp_path) == []


async def test_a_directory_to_keep_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    async with demo(tmp_path, "--keep", str(tmp_path)) as process:
        out, _ = await process.communicate()
    assert process.returncode == 2
    assert b"is not empty" in out
