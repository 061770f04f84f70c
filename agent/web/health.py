"""Probes and the scrape: is the agent alive, do the apps serve, and the metrics."""

from __future__ import annotations

from aiohttp import web

from agent.status.metrics import CONTENT_TYPE
from agent.web.context import CONTEXT
from agent.web.negotiate import JSON, TEXT, choose
from agent.web.problem import json_response


async def healthz(_request: web.Request) -> web.Response:
    """200 as long as the event loop answers."""
    return web.Response(text="alive\n")


async def readyz(request: web.Request) -> web.Response:
    """200 when every wanted app serves, else 503 with one reason a line.

    `?page=ok` counts an app whose page or hold stands in on purpose as ready.
    """
    context = request.app[CONTEXT]
    reasons = context.board.unready(page_ok=request.query.get("page") == "ok")
    if context.shutting_down:
        reasons = ["the agent is shutting down", *reasons]
    status = 503 if reasons else 200
    headers = {"Retry-After": "1"} if reasons else None
    if choose(request.headers.get("Accept", ""), (TEXT, JSON)) == JSON:
        return json_response({"ready": not reasons, "reasons": reasons}, status, headers)
    text = "\n".join(reasons or ["ready"]) + "\n"
    return web.Response(status=status, text=text, headers=headers)


async def metrics(request: web.Request) -> web.Response:
    """The Prometheus text format."""
    text = await request.app[CONTEXT].metrics.text()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
