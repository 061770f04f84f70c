"""`GET /status`: the whole picture as JSON for programs, as text for terminals, as a page for browsers.

`GET /` is the same for those who come to look: the page, or text for a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiohttp import web

from agent.web import dashboard
from agent.web.context import CONTEXT
from agent.web.negotiate import HTML, JSON, TEXT, form
from agent.web.problem import encode
from agent.web.words import as_text

_VARY = {"Vary": "Accept"}


async def status(request: web.Request) -> web.Response:
    """JSON unless text or HTML is asked for."""
    return await _told(request, (JSON, TEXT, HTML))


async def overview(request: web.Request) -> web.Response:
    """Text unless JSON or HTML is asked for."""
    return await _told(request, (TEXT, HTML, JSON))


async def _told(request: web.Request, forms: Sequence[str]) -> web.Response:
    snapshot = request.app[CONTEXT].board.snapshot()
    wanted = form(request, forms)
    if wanted == HTML:
        return await dashboard.page(snapshot, time.time())
    if wanted == TEXT:
        return web.Response(text=as_text(snapshot, time.time()), headers=_VARY)
    return web.Response(body=encode(snapshot), content_type="application/json", headers=_VARY)
