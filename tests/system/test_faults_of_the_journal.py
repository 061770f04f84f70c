"""The journal damaged, lost, or from the future: it is begun anew, and the app serves on."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kit.box import Box, Load
from tests.kit.world import World


def garbage(path: Path) -> None:
    """Random bytes from the second page on; nothing of it is in the log any more."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def lost(path: Path) -> None:
    """Gone with its log."""
    for tail in ("", "-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def newer(path: Path) -> None:
    """As a later version would leave it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (garbage, "Damaged"),
    (lost, "Missing"),
    (newer, "Newer"),
]


async def test_an_agent_goes_on_without_its_journal_and_says_so(box: Box) -> None:
    world = World(box)
    await world.running()
    serving = (await box.app())["child"]["pid"]
    async with Load(box.port) as load:
        for damage, reason in DAMAGES:
            pid = await box.agent_pid()
            os.kill(pid, signal.SIGSTOP)  # so that it sees nothing of it
            damage(box.data / "journal.db")
            os.kill(pid, signal.SIGKILL)

            async def told(reason: str = reason, pid: int = pid) -> bool:
                status = await _status(box)
                return status.get("agent", {}).get("pid") != pid and _lost(status) == ("True", reason)

            await box.until(told)
            app = await box.app_is(state="running", current__version="1.0", good__version="1.0")
            assert app["child"]["pid"] == serving
        await world.deploy("2.0", push=True)
        await box.proven("2.0")
    assert load.failures == []
    assert (await box.history())[0]["version"] == "2.0"
    kept = sorted(path.name.rpartition("-")[0] for path in box.data.glob("journal.db.*Z"))
    assert kept == ["journal.db.corrupt", "journal.db.newer"]


async def _status(box: Box) -> dict[str, Any]:
    try:
        return await box.status()
    except OSError:  # no agent just now
        return {}


def _lost(status: dict[str, Any]) -> tuple[str, str]:
    found = next((c for c in status.get("conditions", []) if c["type"] == "JournalLost"), None)
    return (found["status"], found["reason"]) if found else ("", "")
