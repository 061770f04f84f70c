"""The store of releases: GET /store, POST /store/verify, POST /store/gc. By the socket, or with the token."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.kit.mask import secrets
from agent.web import tables
from agent.web.access import privileged
from agent.web.context import CONTEXT
from agent.web.control import Short, Wish, carried_out, wished
from agent.web.negotiate import JSON, TEXT, form
from agent.web.problem import json_response


class VerifyWish(Wish, frozen=True):
    """POST /store/verify. With `repair` what was changed is fetched again."""

    release: Short
    repair: bool = False


class CollectWish(Wish, frozen=True):
    """POST /store/gc. With `dry_run` nothing is removed."""

    dry_run: bool = False


@privileged
async def stored(request: web.Request) -> web.Response:
    """What is in the store, for whom, and what it takes. Behind the door, because it reads the disk."""
    found: dict[str, Any] = dict(await request.app[CONTEXT].control.stored())
    if form(request, (JSON, TEXT)) == JSON:
        return json_response(found, headers={"Vary": "Accept"})
    return web.Response(text=tables.written(tables.stored(secrets.data(found))), headers={"Vary": "Accept"})


@privileged
async def verify(request: web.Request) -> web.Response:
    """Compare a release with what was unpacked."""
    wish = await wished(request, VerifyWish)
    control = request.app[CONTEXT].control
    if wish.repair:  # what is begun goes on when the client goes away
        found = await carried_out(request, control.verify_release(wish.release, repair=True))
    else:
        found = await control.verify_release(wish.release, repair=False)
    return json_response(dict(found))


@privileged
async def gc(request: web.Request) -> web.Response:
    """Remove what nobody needs."""
    wish = await wished(request, CollectWish)
    collecting = request.app[CONTEXT].control.collect(dry_run=wish.dry_run)
    return json_response(dict(await carried_out(request, collecting)))
