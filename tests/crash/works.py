"""Programs that run to their end, and programs that are limited."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.crash.kind import HEALTH, Kind

GROUPS = Path("/sys/fs/cgroup")


class Job(Kind):
    """A job, which runs once after each of its releases."""

    programs = 0
    lossless = False
    heard = (4,)

    async def begin(self, number: int) -> str:
        job = {
            "command": self.stage.world.shell(
                f"echo {number} >> $W/begun; sleep 0.05; echo {number} >> $W/done"
            ),
            "after_release": True,
            "retries": 3,
            "backoff": "50ms",
        }
        return await self.box.commit(
            {"schema": 1, "apps": {"report": {"version": f"{number}.0", "job": job}}}
        )

    async def reached(self, number: int) -> bool:
        told = await self.box.app("report")
        right = told and told["state"] == "ready" and not told.get("run")
        if not right or any(
            (told[pair] or {}).get("version") != f"{number}.0" for pair in ("current", "good")
        ):
            return False
        ended = [row for row in await self._rows() if row["version"] == f"{number}.0"]
        return any(row["result"] == "succeeded" for row in ended)

    async def outset(self) -> None:
        for name in ("begun", "done"):
            (self.stage.world.path / name).unlink(missing_ok=True)

    async def wrong(self) -> list[str]:
        """A run is told once; only who was killed with the keeper begins again, and that is told."""
        begun, done = (self.stage.world.lines(name) for name in ("begun", "done"))
        found = []
        for version in sorted(set(begun)):
            rows = [row for row in await self._rows() if row["version"] == f"{version}.0"]
            attempts = sum(row["attempt"] for row in rows)
            if len(rows) != 1 or begun.count(version) > attempts:
                found.append(f"version {version} ran {begun.count(version)} times: {rows}")
            if self.whom == "agent" and done.count(version) != 1:
                found.append(f"version {version} ran to its end {done.count(version)} times: {rows}")
        return found

    async def _rows(self) -> list[dict[str, Any]]:
        connector = aiohttp.UnixConnector(str(self.box.data / "agent.sock"))
        async with aiohttp.ClientSession("http://agent", connector=connector) as session:
            async with session.get("/jobs?app=report&limit=500") as answer:
                rows: list[dict[str, Any]] = (await answer.json())["jobs"]
                return rows


class Limited(Kind):
    """An upgrade of a program that has control groups of its own."""

    heard = (4,)

    async def begin(self, number: int) -> str:
        self.app = f"web{self.box.port}"  # groups are the machine's: others make some of their own meanwhile
        run = {
            "command": [sys.executable, "-S", "bin/web"],
            "limits": {"memory": "128MiB", "pids": 100},
        }
        app = self.stage.world.app(f"{number}.0", run=run, health=HEALTH)
        return await self.stage.world.commit({self.app: app})

    async def reached(self, number: int) -> bool:
        version = f"{number}.0"
        served = await self.serves(version, self.app)
        return served and (await self.runs(version, self.app))[0] == "succeeded"

    async def wrong(self) -> list[str]:
        """One program has groups, and nobody else."""
        end = asyncio.get_running_loop().time() + 30
        while (found := await asyncio.to_thread(self._groups)) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        return found

    def _groups(self) -> list[str]:
        found = {}
        for path in GROUPS.rglob(f"{self.app}~*"):
            with suppress(OSError):  # it has just gone
                found[path] = (path / "cgroup.procs").read_text()
        names = {path.name for path in found}
        empty = [f"nobody is in {path}" for path, processes in found.items() if not processes]
        return empty + ([] if len(names) == 1 else [f"groups: {sorted(names)}"])
