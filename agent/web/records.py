"""What was, what would be, and what an app says: GET /history, /plan and /logs."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.kit.mask import secrets
from agent.status.log import shown
from agent.web.access import privileged
from agent.web.context import CONTEXT
from agent.web.negotiate import JSON, TEXT, choose
from agent.web.problem import Problem, json_response

HISTORY_MAX = 500
LINES_MAX = 1000
DEADLINE = 60.0  # seconds for an answer that has to ask the Git server


async def history(request: web.Request) -> web.Response:
    """Past runs, newest first. ?app= and ?limit= narrow it."""
    limit = _number(request, "limit", 20, HISTORY_MAX)
    runs = await request.app[CONTEXT].control.history(app=_text(request, "app"), limit=limit)
    return json_response({"runs": list(runs)})


@privileged
async def plan(request: web.Request) -> web.Response:
    """What a sync of ?ref= would do. Behind the door, because it makes the agent work."""
    async with asyncio.timeout(DEADLINE):
        return json_response(await request.app[CONTEXT].control.plan(_text(request, "ref")))


@privileged
async def logs(request: web.Request) -> web.Response:
    """The last lines of an app's child."""
    app = _text(request, "app")
    if not app:
        raise Problem(400, "AppMissing", "say which app: /logs?app=NAME")
    lines = await request.app[CONTEXT].control.logs(app, _number(request, "lines", 200, LINES_MAX))
    if choose(request.headers.get("Accept", ""), (TEXT, JSON)) == JSON:
        return json_response({"app": app, "lines": list(lines)})
    return web.Response(text="".join(f"{shown(secrets.text(line))}\n" for line in lines))


def _text(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if len(value) > 200:
        raise Problem(400, "QueryInvalid", f"{name} has more than 200 characters")
    return value


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise Problem(400, "QueryInvalid", f"{name} must be a number from 1 to {most}")
    return int(text)
