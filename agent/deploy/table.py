"""The table of processes: the keeper, the agent, and every child, with what it is for and what it uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.deploy.lane import Lane
from agent.deploy.leftovers import found_children
from agent.deploy.reconciler import Lanes
from agent.kit.clock import rfc3339
from agent.process.keepers import Keeper
from agent.process.usage import Usage, usage


@dataclass(slots=True)
class _Row:
    app: str
    child: str
    pid: int
    state: str
    version: str = ""
    number: int | None = None
    started: float = 0.0


class ProcessTable:
    """Makes it. `own` are the keeper's and the agent's pid."""

    def __init__(self, keeper: Keeper, lanes: Lanes, own: tuple[int, int], version: str) -> None:
        self._keeper = keeper
        self._lanes = lanes
        self._own = own
        self._version = version
        self._started = time.time()

    async def rows(self) -> Sequence[Mapping[str, Any]]:
        """The processes as JSON, those of apps first."""
        keeper, agent = self._own
        ours = [
            _Row("", "keeper", keeper, "running"),
            _Row("", "agent", agent, "running", self._version, started=self._started),
        ]
        rows = [row for name in self._lanes.by_name for row in await self._of_app(name)]
        used = await asyncio.to_thread(usage, [row.pid for row in rows], self._own)
        return [_told(row, used.get(row.pid)) for row in (*rows, *ours)]

    async def _of_app(self, app: str) -> list[_Row]:
        lane = self._lanes.by_name[app]
        found = {child.id: child for child in found_children(self._keeper, app)}
        versions = {child.id: child.deployment.pair.version for child in lane.app.serving.everyone()}
        rows = []
        for record in self._keeper.children.values():
            if not record.running:
                continue
            child = found.get(record.child)
            if child is not None:
                state = "leaving" if child.leaving else _state(lane, record.child)
                version, number = versions.get(record.child, ""), child.note.number
            elif (command := _command(record.note, app)) is not None:
                state, version, number = command, "", None
            else:
                continue
            rows.append(_Row(app, record.child, record.pid, state, version, number, record.started))
        return rows


def _state(lane: Lane, child: str) -> str:
    serving = lane.app.serving
    return next((serving.role(each) for each in serving.everyone() if each.id == child), "starting")


def _command(note: str, app: str) -> str | None:
    """What a command of the app is for; None when it is none of its commands."""
    try:
        told = msgspec.json.decode(note, type=dict[str, str])
    except msgspec.MsgspecError:
        return None
    return ("job" if "job" in told else told.get("command")) if told.get("app") == app else None


def _told(row: _Row, used: Usage | None) -> dict[str, Any]:
    uptime = max(0.0, time.time() - row.started) if row.started else None
    return {
        "app": row.app or None,
        "name": row.child,
        "version": row.version or None,
        "instance": row.number,
        "pid": row.pid,
        "state": row.state if used is not None else "gone",
        "started": rfc3339(row.started) or None,
        "uptime_seconds": None if uptime is None else round(uptime, 3),
        "processes": used.processes if used else 0,
        "pss": used.pss if used else None,
        "rss": used.rss if used else None,
        "cpu_seconds": round(used.cpu_seconds, 2) if used else None,
        "cpu_percent": round(100 * used.cpu_seconds / uptime, 1) if used and uptime else None,
    }
