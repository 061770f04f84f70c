"""A stage for the command line: the real board and the real HTTP face, with a scripted agent behind them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.cli.main import main
from agent.config import Address, Settings
from agent.domain.control import Accepted, Line, NotPossible, UnknownApp
from agent.domain.events import (
    AppWanted,
    Bus,
    Event,
    PairCurrent,
    PauseChanged,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    SyncFinished,
    SyncStarted,
)
from agent.domain.model import (
    Pair,
    PlannedStep,
    RunResult,
    StepResult,
    SyncResult,
    TriggerKind,
    new_id,
)
from agent.kit.tasks import Owned
from agent.status.board import AgentInfo, Board
from agent.status.metrics import Metrics
from agent.web.server import Face
from tests.kit.execs import PlayedExecs
from tests.kit.faces import STORED
from tests.kit.jobs import PlayedJobs

COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True)
class Answer:
    """What a command line did."""

    code: int
    out: str
    err: str


def run_here(*words: str, color: bool = False, env: Mapping[str, str | None] | None = None) -> Answer:
    """Carry out a command line in this thread, its output caught."""
    with CliRunner().isolation(env=env, color=color) as streams:
        code = main(words)
        return Answer(code, streams[0].getvalue().decode(), streams[1].getvalue().decode())


def pair(version: str, spec: str = "", since: float = 0.0) -> Pair:
    """A pair of which only the version matters."""
    return Pair(spec or f"spec of {version}", "r", "g", version, COMMIT, f"sha256:{'ab' * 32}", since)


class WatchedBoard(Board):
    """Lets a script wait until somebody looks."""

    def __init__(self, bus: Bus, info: AgentInfo) -> None:
        super().__init__(bus, info)
        self.looks = 0
        self.looked = asyncio.Event()

    def snapshot(self) -> dict[str, Any]:
        self.looks += 1
        self.looked.set()
        return super().snapshot()


Script = Callable[["Stage", str], Awaitable[None]]


class Stage:
    """Implements `agent.domain.control.Control` by playing `script` for each sync."""

    def __init__(self, board: WatchedBoard, bus: Bus, socket: Path, tasks: Owned) -> None:
        self.board = board
        self.bus = bus
        self.socket = socket
        self.tasks = tasks
        self.script: Script | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.runs: list[dict[str, Any]] = []
        self.syncs: list[dict[str, Any]] = []
        self.children: list[dict[str, Any]] = []
        self.findings: list[dict[str, Any]] = []
        self.planned: dict[str, Any] = {}
        self.planning = 0.0  # seconds that a plan takes
        self.ends: dict[str, SyncFinished] = {}
        self.jobs = PlayedJobs()
        self.execs = PlayedExecs()

    async def command(self, *words: str, color: bool = False) -> Answer:
        """Carry out a command line that asks this agent."""
        first = 2 if words[0] == "job" else 1
        verb, rest = words[:first], words[first:]
        return await asyncio.to_thread(run_here, *verb, "--socket", str(self.socket), *rest, color=color)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.bus.publish(event)

    async def seen(self) -> None:
        """Wait until the command line has looked at what was told so far."""
        self.board.looked.clear()
        async with asyncio.timeout(10):
            await self.board.looked.wait()

    def end(self, sync: str, result: SyncResult, **more: Any) -> None:
        self.ends[sync] = SyncFinished(sync, result, COMMIT, **more)
        self.tell(self.ends[sync])

    def _accept(self, *what: Any) -> Accepted:
        self.asked.append(what)
        sync = new_id("sync")
        if self.script is not None:
            script = self.script(self, sync)

            async def play() -> None:
                await script

            self.tasks.start(play(), name="script")
        return Accepted(sync)

    def sync(
        self, by: str, *, prune_all: bool = False, accept_history: bool = False, override: str = ""
    ) -> Accepted:
        more = [*(["accept_history"] if accept_history else []), *([override] if override else [])]
        return self._accept("sync", prune_all, *more)

    async def wait(self, sync: str, deadline: float) -> SyncFinished | None:
        return self.ends.get(sync)

    async def rollback(self, app: str, by: str, to: str = "") -> Accepted:
        if app not in self.board.apps:
            raise UnknownApp(f"no app is named {app}; there are: web")
        if to == "9.9.9":
            raise NotPossible("no release 9.9.9 is here; there are: 1.0.0")
        return self._accept("rollback", app, to)

    async def retry(self, app: str, by: str) -> Accepted:
        return self._accept("retry", app)

    async def promote(self, app: str, by: str) -> Accepted:
        return self._accept("promote", app)

    async def abort(self, app: str, by: str) -> Accepted:
        return self._accept("abort", app)

    async def pause(self, message: str, by: str) -> None:
        self.asked.append(("pause", message))
        self.tell(PauseChanged(message, by))

    async def upgrade(self, by: str) -> dict[str, str]:
        self.asked.append(("upgrade", by))
        return {"version": "9.9"}

    async def resume(self, by: str) -> Accepted:
        self.tell(PauseChanged(None, by))
        return self._accept("resume")

    async def plan(self, ref: str = "") -> Mapping[str, Any]:
        self.asked.append(("plan", ref))
        await asyncio.sleep(self.planning)
        return self.planned

    async def history(self, *, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        return [run for run in self.runs if app in ("", run["app"])][:limit]

    async def logs(self, app: str, lines: int = 200) -> Sequence[Line]:
        if app and app not in self.board.apps:
            raise UnknownApp(f"no app is named {app}; there are: web")
        said = ["first", "\x1b[2Jsecond\x07", "third"]
        return [Line("web", text, f"2026-11-21T07:38:18.00{n}Z", "web", 7) for n, text in enumerate(said)][
            -lines:
        ]

    @asynccontextmanager
    async def following(self, app: str, lines: int = 200) -> AsyncIterator[AsyncIterator[Sequence[Line]]]:
        async def follow() -> AsyncIterator[Sequence[Line]]:
            yield await self.logs(app, lines)
            yield [Line("web", "fourth", "2026-11-21T07:38:19.000Z", "web/check", 8)]
            while True:
                yield []
                await asyncio.sleep(0.01)

        yield follow()

    async def failed_syncs(self, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        return self.syncs[:limit]

    async def processes(self) -> Sequence[Mapping[str, Any]]:
        return self.children

    async def doctor(self) -> Mapping[str, Any]:
        return {"findings": self.findings}

    async def stored(self) -> Mapping[str, Any]:
        return STORED

    async def verify_release(self, release: str, *, repair: bool) -> Mapping[str, Any]:
        changed = [] if release == "r1" else ["bin/web"]
        return {
            "release": release,
            "verdict": "ok" if release == "r1" else "repaired" if repair else "changed",
            "files": 3,
            "read": 4096,
            "changed": changed,
            "changed_count": len(changed) * 3,
            "extra": ["\x1b[31mred"],
            "extra_count": 1,
        }

    async def collect(self, *, dry_run: bool) -> Mapping[str, Any]:
        return {"removed": [{"release": "r0", "bytes": 2048}], "dry_run": dry_run, "free": 1 << 20}


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """The face on a Unix socket and a free port."""
    directory = Path(tempfile.mkdtemp(prefix="stage-"))
    bus = Bus()
    info = AgentInfo(
        version="0.1.0",
        host="box-7",
        labels={"env": "test"},
        started=time.time() - 3600,
        born=time.monotonic() - 3600,
        pid=4711,
        repo="https://git.example/state.git",
        ref="main",
        path="",
        data_format=1,
    )
    board = WatchedBoard(bus, info)
    settings = Settings(admin=Address("127.0.0.1", 0), socket=directory / "agent.sock", data=directory)
    try:
        async with Owned("stage") as tasks:
            stage = Stage(board, bus, settings.socket, tasks)
            async with Face(settings, board, Metrics(bus, board), stage):
                yield stage
    finally:
        shutil.rmtree(directory)


def deploys(version: str, result: RunResult = RunResult.SUCCEEDED, **more: Any) -> Script:
    """A script: one run of web to `version`, each word seen before the next."""

    async def script(stage: Stage, sync: str) -> None:
        run, new = new_id("run"), pair(version)
        steps = (
            PlannedStep("fetch", "fetch", "not in the store"),
            PlannedStep("start", "start", "a new child", ("fetch",)),
        )
        await stage.seen()
        stage.tell(SyncStarted(sync, (TriggerKind.OPERATOR,)))
        stage.tell(AppWanted("web", new, f"version {version} is wanted"))
        stage.tell(RunStarted(run, sync, "web", f"{version} replaces 1.0.0", steps))
        stage.tell(StepStarted(run, "web", "fetch", "fetch"))
        await stage.seen()
        stage.tell(StepFinished(run, "web", "fetch", "fetch", StepResult.SUCCEEDED, 0.12))
        stage.tell(StepStarted(run, "web", "start", "start"))
        await stage.seen()
        failure = more.get("failure")
        ok = result is RunResult.SUCCEEDED
        step = StepResult.SUCCEEDED if ok else StepResult.FAILED
        stage.tell(StepFinished(run, "web", "start", "start", step, 0.5, failure))
        row: dict[str, Any] = {
            "id": run,
            "sync": sync,
            "app": "web",
            "version": version,
            "result": str(result),
        }
        row["failure"] = None if failure is None else {"reason": failure.reason, "message": failure.message}
        if ok:
            stage.tell(PairCurrent("web", new))
            stage.tell(RunFinished(run, sync, "web", RunResult.PROBATION, 0.7))
            stage.runs.insert(0, row | {"result": "probation"})
            stage.end(sync, SyncResult.PROBATION)
            await stage.seen()
        stage.tell(RunFinished(run, sync, "web", result, 0.7, failure))
        stage.runs[:] = [row, *(r for r in stage.runs if r["id"] != run)]
        stage.end(sync, SyncResult(str(result)))

    return script
