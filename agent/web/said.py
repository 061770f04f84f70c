"""`GET /logs`: what apps say; with `?follow=1` as it comes, until the client goes or the agent ends.

Text, or JSON by `Accept` or as /logs.json: one object, followed one a line (application/x-ndjson), with
an empty line every `HEARTBEAT` seconds of silence. Secrets the agent knows are masked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from agent.domain.control import Line
from agent.kit.mask import secrets
from agent.status.log import shown
from agent.web.access import privileged
from agent.web.context import CONTEXT
from agent.web.negotiate import JSON, TEXT, form
from agent.web.problem import Problem, json_response
from agent.web.query import flag, number, text

LINES_MAX = 100_000
FOLLOWERS_MAX = 16
HEARTBEAT = 15.0
WRITE_DEADLINE = 30.0  # seconds a client may leave what is sent to it unread


@privileged
async def logs(request: web.Request) -> web.StreamResponse:
    """The last ?lines= lines of ?app= (or of all), with their times if ?times=1."""
    app, count = text(request, "app"), number(request, "lines", 200, LINES_MAX)
    as_json, times = form(request, (TEXT, JSON)) == JSON, flag(request, "times")
    if flag(request, "follow"):
        return await _follow(request, app, count, as_json, times)
    lines = await request.app[CONTEXT].control.logs(app, count)
    if as_json:
        return json_response({"app": app, "lines": [told(line) for line in lines]})
    return web.Response(text="".join(f"{written(line, app, times)}\n" for line in lines))


async def _follow(
    request: web.Request, app: str, count: int, as_json: bool, times: bool
) -> web.StreamResponse:
    context = request.app[CONTEXT]
    if context.followers >= FOLLOWERS_MAX:
        detail = "as many clients follow logs as may; try again later"
        raise Problem(503, "TooManyListeners", detail, headers={"Retry-After": "10"})
    context.followers += 1
    try:
        async with context.control.following(app, count) as following:
            response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
            response.content_type = "application/x-ndjson" if as_json else "text/plain"
            response.charset = "utf-8"
            await response.prepare(request)
            quiet = time.monotonic()
            async for lines in following:
                if context.closing:
                    break
                if lines:
                    await _write(response, _encoded(lines, app, as_json, times))
                    quiet = time.monotonic()
                elif as_json and time.monotonic() - quiet > HEARTBEAT:
                    await _write(response, b"\n")
                    quiet = time.monotonic()
    except (ConnectionError, TimeoutError):
        response.force_close()
    finally:
        context.followers -= 1
    return response


def _encoded(lines: Sequence[Line], app: str, as_json: bool, times: bool) -> bytes:
    if as_json:
        return b"".join(msgspec.json.encode(secrets.data(told(line))) + b"\n" for line in lines)
    return "".join(f"{written(line, app, times)}\n" for line in lines).encode()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_DEADLINE):
        await response.write(data)


def told(line: Line) -> dict[str, Any]:
    """A line for programs. `source` is the app, or the command of it that said it."""
    return {"app": line.app, "at": line.at, "source": line.source, "pid": line.pid, "text": line.text}


def written(line: Line, app: str, times: bool) -> str:
    """A line for people, whose it is where that is not clear."""
    source = line.source or line.app
    whose = "" if source == app else f"{source} | "
    return (
        f"{line.at} {whose}{shown(secrets.text(line.text))}"
        if times and line.at
        else (f"{whose}{shown(secrets.text(line.text))}")
    )
