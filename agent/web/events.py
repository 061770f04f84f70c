"""`GET /events`: facts as they happen, as server-sent events (WHATWG HTML, section 9.2).

Each event has an id and a JSON object as data, whose member `fact` names the fact. A client that comes
back with `Last-Event-ID` gets what it missed, as far as it is kept. Progress has no id and is never
replayed. A comment every `HEARTBEAT` seconds keeps proxies from closing a quiet stream.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent.kit.mask import secrets
from agent.status.feed import Listening, Told, TooManyListeners
from agent.web.context import CONTEXT
from agent.web.problem import Problem

HEARTBEAT = 15.0
WRITE_DEADLINE = 30.0  # seconds a client may leave what is sent to it unread
RETRY = 2000  # milliseconds until a browser comes back


async def events(request: web.Request) -> web.StreamResponse:
    """Stream until the client goes, falls too far behind, or the agent ends."""
    feed = request.app[CONTEXT].board.feed
    try:
        listening = feed.listen(request.headers.get("Last-Event-ID"))
    except TooManyListeners:
        detail = "as many clients listen as may; try again later, or poll /status"
        raise Problem(503, "TooManyListeners", detail, headers={"Retry-After": "10"}) from None
    with listening:
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        await _write(response, f"retry: {RETRY}\n\n".encode())
        try:
            await _stream(listening, response)
        except (ConnectionError, TimeoutError):
            response.force_close()
    return response


async def _stream(listening: Listening, response: web.StreamResponse) -> None:
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT):
                told = await listening.get()
        except TimeoutError:
            await _write(response, b":\n\n")
            continue
        if told is None:
            return
        await _write(response, _frame(told))


def _frame(told: Told) -> bytes:
    data = msgspec.json.encode(secrets.data({"fact": told.name, **told.data}))
    head = f"id: {told.id}\n" if told.id else ""
    return head.encode() + b"data: " + data + b"\n\n"


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_DEADLINE):
        await response.write(data)
