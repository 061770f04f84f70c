"""A real face on free ports and a real socket, a control that records wishes, and clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agent.config import Address, Settings
from agent.domain.control import Accepted, Line, NotPossible, UnknownApp
from agent.domain.events import SyncFinished
from agent.web.server import Face
from tests.kit.execs import PlayedExecs
from tests.kit.jobs import PlayedJobs
from tests.kit.scenes import Stage

LOOPBACK = Address("127.0.0.1", 0)


STORED: Mapping[str, Any] = {
    "root": "/data/store",
    "releases": [
        {
            "release": "r1",
            "files": 3,
            "bytes": 4096,
            "disk": 8192,
            "since": "2026-01-02T03:04:05Z",
            "layers": [],
            "apps": [{"app": "web", "version": "1.0", "spec": "s1", "is": ["current", "good"]}],
        }
    ],
    "parts": {"releases": {"files": 3, "bytes": 4096, "disk": 8192}},
    "disk": 8192,
    "free": 1 << 30,
}


@dataclass
class RecordingControl:
    """Knows one app, `web`. Every wish becomes sync-1, which ends as `end` says, or once `ended` is set."""

    wishes: list[tuple[Any, ...]] = field(default_factory=list)
    end: SyncFinished | None = None
    ended: asyncio.Event | None = None
    slow: asyncio.Event | None = None  # a rollback ends once it is set
    carried_out: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    jobs: PlayedJobs = field(default_factory=PlayedJobs)
    execs: PlayedExecs = field(default_factory=PlayedExecs)

    def _heard(self, *wish: Any) -> Accepted:
        self.wishes.append(wish)
        if self.error is not None:
            raise self.error
        return Accepted("sync-1", merged=len(self.wishes) > 1)

    def _known(self, app: str) -> None:
        if app not in ("", "web"):
            raise UnknownApp(f"there is no app {app}; known are: web")

    def sync(
        self, by: str, *, prune_all: bool = False, accept_history: bool = False, override: str = ""
    ) -> Accepted:
        more = [*(["accept_history"] if accept_history else []), *([override] if override else [])]
        return self._heard("sync", by, prune_all, *more)

    async def wait(self, sync: str, deadline: float) -> SyncFinished | None:
        self.wishes.append(("wait", sync, deadline))
        if self.ended is not None:
            await self.ended.wait()
        return self.end

    async def rollback(self, app: str, by: str, to: str = "") -> Accepted:
        self._known(app)
        if to == "9.9.9":
            raise NotPossible("9.9.9 never ran here")
        if self.slow is not None:
            self.wishes.append(("begun",))
            await self.slow.wait()
        self.carried_out.set()
        return self._heard("rollback", by, app, to)

    async def retry(self, app: str, by: str) -> Accepted:
        self._known(app)
        return self._heard("retry", by, app)

    async def promote(self, app: str, by: str) -> Accepted:
        self._known(app)
        return self._heard("promote", by, app)

    async def abort(self, app: str, by: str) -> Accepted:
        self._known(app)
        return self._heard("abort", by, app)

    async def pause(self, message: str, by: str) -> None:
        self._heard("pause", by, message)

    async def upgrade(self, by: str) -> dict[str, str]:
        self.wishes.append(("upgrade", by))
        return {"version": "9.9"}

    async def resume(self, by: str) -> Accepted:
        return self._heard("resume", by)

    async def plan(self, ref: str = "") -> Mapping[str, Any]:
        self._heard("plan", ref)
        return {"ref": ref, "apps": {}}

    async def history(self, *, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        self._heard("history", app, limit)
        return [{"id": "run-1", "failure": {"message": "at https://bob:pw@host/x"}}]

    async def logs(self, app: str, lines: int = 200) -> Sequence[Line]:
        self._known(app or "web")
        at = "2026-11-21T07:38:18.123Z"
        return [Line("web", "line 1 \x1b[31mred", at, "web", 7), Line("web", "line 2", at, "web/check", 8)][
            -lines:
        ]

    @asynccontextmanager
    async def following(self, app: str, lines: int = 200) -> AsyncIterator[AsyncIterator[Sequence[Line]]]:
        async def follow() -> AsyncIterator[Sequence[Line]]:
            yield await self.logs(app, lines)
            while True:
                yield []
                await asyncio.sleep(0.01)

        self._known(app or "web")
        yield follow()

    async def failed_syncs(self, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        return [{"id": "sync-0", "failure": {"message": "at https://bob:pw@host/x"}}]

    async def processes(self) -> Sequence[Mapping[str, Any]]:
        self.wishes.append(("processes",))
        return [{"app": "web", "child": "web-1", "pid": 7}]

    async def doctor(self) -> Mapping[str, Any]:
        self.wishes.append(("doctor",))
        return {"findings": [{"subject": "git", "verdict": "ok", "told": "https://bob:pw@host/x answers"}]}

    async def stored(self) -> Mapping[str, Any]:
        self.wishes.append(("stored",))
        return STORED

    async def verify_release(self, release: str, *, repair: bool) -> Mapping[str, Any]:
        self.wishes.append(("verify", release, repair))
        if release not in ("r1", "r2"):
            raise NotPossible(f"no release {release!r}")
        return {"release": release, "verdict": "ok"}

    async def collect(self, *, dry_run: bool) -> Mapping[str, Any]:
        self.wishes.append(("gc", dry_run))
        return {"removed": [], "dry_run": dry_run, "free": 1}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str
    json: Any


@dataclass
class Client:
    """Asks through one door."""

    session: aiohttp.ClientSession
    base: str

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, self.base + path, allow_redirects=False, **options) as answer:
            is_json = answer.content_type.endswith(("/json", "+json"))
            return Answer(
                answer.status,
                answer.headers,
                await answer.text(),
                await answer.json(content_type=None) if is_json else None,
            )

    async def get(self, path: str, accept: str = "*/*", **options: Any) -> Answer:
        return await self.ask("GET", path, headers={"Accept": accept}, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.ask("POST", path, **options)


@dataclass
class Hall:
    """A face with its doors."""

    face: Face
    stage: Stage
    control: RecordingControl
    admin: Client
    socket: Client
    webhook: Client | None
    settings: Settings


async def _delivery(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(await request.read())} bytes")


@asynccontextmanager
async def hall(
    folder: Path,
    *,
    control: RecordingControl | None = None,
    stage: Stage | None = None,
    token_file: Path | None = None,
    second: bool = False,
) -> AsyncIterator[Hall]:
    """A face that listens. `second` opens the webhook listener, too."""
    stage, control = stage or Stage(), control or RecordingControl()
    settings = Settings(
        data=folder,
        admin=LOOPBACK,
        socket=folder / "agent.sock",
        webhook=LOOPBACK if second else None,
        control_token_file=token_file,
    )
    async with Face(settings, stage.board, stage.metrics, control, _delivery) as face:
        at = face.addresses
        path = aiohttp.UnixConnector(str(at.socket))
        async with aiohttp.ClientSession() as tcp, aiohttp.ClientSession(connector=path) as unix:
            yield Hall(
                face,
                stage,
                control,
                Client(tcp, f"http://{at.admin}"),
                Client(unix, "http://agent"),
                Client(tcp, f"http://{at.webhook}") if at.webhook is not None else None,
                settings,
            )
