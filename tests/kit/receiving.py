"""A real server with nothing but `POST /webhook`, and a sink that only records."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.kit.forges import Delivery
from webhook.app import Receiver
from webhook.event import ArtifactEvent, Hint, PushEvent
from webhook.sink import Sink, Verdict


@dataclass
class RecordingSink:
    """Accepts everything; each delivery is a sync of its own that ends as `end` says."""

    pushes: list[PushEvent] = field(default_factory=list)
    artifacts: list[ArtifactEvent] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    syncs: int = 0
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    end: Mapping[str, object] | None = None

    def accept(self, pushes: Sequence[PushEvent]) -> Verdict:
        self.pushes += pushes
        return self._accepted()

    def accept_artifact(self, event: ArtifactEvent) -> Verdict:
        self.artifacts.append(event)
        return self._accepted()

    def accept_hint(self, event: Hint) -> Verdict:
        self.hints.append(event)
        return self._accepted()

    def _accepted(self) -> Verdict:
        self.syncs += 1
        return Verdict("accepted", f"sync-{self.syncs}")

    def heard(self, verdict: str, reason: str, detail: str) -> None:
        self.facts.append((verdict, reason, detail))

    async def wait(self, sync: str, deadline: float) -> Mapping[str, object] | None:
        return {"sync": sync, **self.end} if self.end is not None else None


@dataclass
class Answer:
    """What came back."""

    status: int
    type: str
    body: dict[str, Any]
    headers: Mapping[str, str]


class Client:
    """Sends deliveries to one server over real connections."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session = session
        self.port = port
        self.url = f"http://127.0.0.1:{port}/webhook"

    async def send(self, delivery: Delivery, *, query: str = "", method: str = "POST") -> Answer:
        request = self.session.request(
            method,
            self.url + query,
            data=io.BytesIO(delivery.body),
            headers=delivery.headers,
            allow_redirects=False,
        )
        async with request as response:
            return Answer(
                response.status,
                response.content_type,
                await response.json(content_type=None),
                response.headers,
            )


@asynccontextmanager
async def receiving(
    sink: Sink, secrets: Sequence[bytes] = (b"s3cret",), **options: Any
) -> AsyncIterator[Client]:
    """A receiver on a free port, and a client for it."""
    receiver = Receiver(sink, lambda: secrets, **options)
    app = web.Application()
    app.router.add_route("*", "/webhook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, lingering_time=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            yield Client(session, port)
    finally:
        await runner.cleanup()
