"""A real HTTP server that stands for a forge's API or a chat: records what arrives, answers as it is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Got:
    """One request."""

    method: str
    path: str  # as it was sent, quoted
    headers: dict[str, str]
    content: dict[str, Any]


def anything(_got: Got) -> str:
    """Every request is right."""
    return ""


@dataclass
class ApiServer:
    """`answers` are given first, one a request; then `shape` decides: it says what is wrong, or ""."""

    shape: Callable[[Got], str] = anything
    answers: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    port: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        content = json.loads(text) if text else {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        got = Got(request.method, request.raw_path, headers, content)
        self.got.append(got)
        self.arrived.set()
        if self.answers:
            status, more, body = self.answers.pop(0)
            return web.Response(status=status, headers=more, text=body)
        if wrong := self.shape(got):
            return web.json_response({"message": wrong}, status=422)
        return web.json_response({"id": len(self.got)}, status=201)

    async def requests(self, count: int) -> list[Got]:
        """Wait until so many came."""
        async with asyncio.timeout(30):
            while len(self.got) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.got


@asynccontextmanager
async def api_server(shape: Callable[[Got], str] = anything, port: int = 0) -> AsyncIterator[ApiServer]:
    """One, on a free port (or the given one)."""
    server = ApiServer(shape)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


SHA = "([0-9a-f]{40})"


def github(got: Got) -> str:
    """What GitHub's documentation of "Create a commit status" asks for."""
    return _statuses(
        got, "/repos/[^/]+/[^/]+/statuses/", "bearer ", {"error", "failure", "pending", "success"}
    )


def gitea(got: Got) -> str:
    """What Gitea's and Forgejo's swagger documents ask for (CreateStatusOption)."""
    return _statuses(
        got,
        "/api/v1/repos/[^/]+/[^/]+/statuses/",
        "token ",
        {"pending", "success", "error", "failure", "warning"},
    )


def _statuses(got: Got, path: str, scheme: str, states: set[str]) -> str:
    if not re.fullmatch(path + SHA, got.path) or got.method != "POST":
        return f"no route {got.method} {got.path}"
    if not got.headers.get("authorization", "").lower().startswith(scheme):
        return "no credentials"
    if set(got.content) - {"state", "target_url", "description", "context"}:
        return "unknown fields"
    if got.content.get("state") not in states:
        return "state"
    return "description" if len(got.content.get("description", "")) > 140 else ""


def gitlab(got: Got) -> str:
    """What GitLab's "Set commit pipeline status" asks for: the project's path as one quoted segment."""
    if not re.fullmatch(r"/api/v4/projects/[^/]+%2F[^/]+/statuses/" + SHA, got.path) or got.method != "POST":
        return f"no route {got.path}"
    if not got.headers.get("private-token"):
        return "no credentials"
    if set(got.content) - {"state", "name", "context", "target_url", "description", "ref", "coverage"}:
        return "unknown fields"
    return "" if got.content["state"] in {"pending", "running", "success", "failed", "canceled"} else "state"


def bitbucket_cloud(got: Got) -> str:
    """What Bitbucket Cloud's "Create a build status for a commit" asks for."""
    if not re.fullmatch(rf"/2.0/repositories/[^/]+/[^/]+/commit/{SHA}/statuses/build", got.path):
        return f"no route {got.path}"
    return _build(got, {"INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"})


def bitbucket_server(got: Got) -> str:
    """What Bitbucket Server's build-status API asks for."""
    if not re.fullmatch(f"/rest/build-status/1.0/commits/{SHA}", got.path):
        return f"no route {got.path}"
    return _build(got, {"INPROGRESS", "SUCCESSFUL", "FAILED"})


def _build(got: Got, states: set[str]) -> str:
    if not got.headers.get("authorization", "").startswith(("Bearer ", "Basic ")):
        return "no credentials"
    if not all(got.content.get(name) for name in ("key", "state", "url")):
        return "key, state and url are required"
    if len(got.content["key"]) > 40 or got.content["state"] not in states:
        return "key or state"
    return "" if got.content["url"].startswith("http") else "url"


SHAPES: dict[str, Callable[[Got], str]] = {
    "github": github,
    "gitea": gitea,
    "forgejo": gitea,
    "gitlab": gitlab,
    "bitbucket-cloud": bitbucket_cloud,
    "bitbucket-server": bitbucket_server,
}
