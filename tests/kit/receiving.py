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
from webhook.event import PushEvent
from webhook.sink import Sink, Verdict


@dataclass
class RecordingSink:
    """Accepts every push; each is a sync of its own that ends as `end` says."""

    pushes: list[PushEvent] = field(default_factory=list)
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    end: Mapping[str, object] | None = None

    def accept(self, event: PushEvent) -> Verdict:
        self.pushes.append(event)
        return Verdict("accepted", f"sync-{len(self.pushes)}")

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
