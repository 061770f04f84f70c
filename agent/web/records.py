"""What was, would be, runs, and may be wrong: GET /history, /plan, /ps and /doctor.

JSON, or text by `Accept` or as /history.txt and so on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from agent.kit.mask import secrets
from agent.status.waiting import waiting
from agent.web import tables
from agent.web.access import privileged
from agent.web.context import CONTEXT
from agent.web.negotiate import JSON, TEXT, form
from agent.web.problem import json_response
from agent.web.query import number, text

HISTORY_MAX = 500
DEADLINE = 60.0  # seconds for an answer that has to ask the Git server


async def history(request: web.Request) -> web.Response:
    """Past runs, syncs that failed before any run, and commands of `exec`, newest first.

    ?app= and ?limit= narrow it.
    """
    control = request.app[CONTEXT].control
    app, limit = text(request, "app"), number(request, "limit", 20, HISTORY_MAX)
    runs = await control.history(app=app, limit=limit)
    syncs = [] if app else await control.failed_syncs(limit)
    execs = await control.execs.history(app, limit)
    return _told(request, {"runs": list(runs), "syncs": list(syncs), "execs": list(execs)}, tables.history)


@privileged
async def plan(request: web.Request) -> web.Response:
    """What a sync of ?ref= would do. Behind the door, because it makes the agent work."""
    async with asyncio.timeout(DEADLINE):
        planned = await request.app[CONTEXT].control.plan(text(request, "ref"))
    return _told(request, dict(planned), tables.plan)


@privileged
async def processes(request: web.Request) -> web.Response:
    """What runs here and what it uses. Behind the door for the same reason."""
    context = request.app[CONTEXT]
    rows = []
    for row in await context.control.processes():
        picture = context.board.apps.get(row["app"] or "")
        serves = picture is not None and picture.child is not None and row.get("state") == "serving"
        restarts = picture.child.restarts if picture is not None and picture.child is not None else 0
        rows.append({**row, "restarts": restarts if serves else 0})
    return _told(request, {"processes": rows}, tables.processes)


@privileged
async def doctor(request: web.Request) -> web.Response:
    """What may be wrong, and what is being waited for."""
    context = request.app[CONTEXT]
    async with asyncio.timeout(DEADLINE):
        found = await context.control.doctor()
    return _told(request, {**found, "waiting": waiting(context.board.snapshot())}, tables.findings)


def _told(
    request: web.Request, data: dict[str, Any], lines: Callable[[dict[str, Any]], Iterator[str]]
) -> web.Response:
    if form(request, (JSON, TEXT)) == JSON:
        return json_response(data, headers={"Vary": "Accept"})
    text = tables.written(lines(secrets.data(data)))
    return web.Response(text=text, headers={"Vary": "Accept"})
