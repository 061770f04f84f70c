"""Jobs: GET /jobs, POST /job/run, POST /job/stop. By the socket, or with the token."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.kit.mask import secrets
from agent.web import tables
from agent.web.access import privileged, who
from agent.web.context import CONTEXT
from agent.web.control import WAIT_DEADLINE, Long, Short, Wish, carried_out, wished
from agent.web.negotiate import JSON, TEXT, form
from agent.web.problem import Problem, json_response
from agent.web.query import number, text

RUNS_MAX = 500


class RunWish(Wish, frozen=True):
    """POST /job/run. `parameters` are those that the state declares; the others keep what it gives them."""

    app: Short
    parameters: dict[Short, Long] = msgspec.field(default_factory=dict)


class StopWish(Wish, frozen=True):
    """POST /job/stop."""

    app: Short


@privileged
async def runs(request: web.Request) -> web.Response:
    """Runs, newest first, with what they said. ?app=, ?run= and ?limit= narrow it."""
    app, limit = text(request, "app"), number(request, "limit", 20, RUNS_MAX)
    found = {"jobs": list(await request.app[CONTEXT].control.jobs.runs(app, limit, text(request, "run")))}
    if form(request, (JSON, TEXT)) == JSON:
        return json_response(found, headers={"Vary": "Accept"})
    return web.Response(text=tables.written(tables.jobs(secrets.data(found))), headers={"Vary": "Accept"})


@privileged
async def run(request: web.Request) -> web.Response:
    """Begin a run: 202 with its id; with ?wait=1 200 or 409 with how it ended and what it said."""
    wish = await wished(request, RunWish)
    jobs = request.app[CONTEXT].control.jobs
    begun = await carried_out(request, jobs.run(wish.app, who(request), wish.parameters))
    if request.query.get("wait", "").lower() not in ("1", "true", "yes"):
        return json_response({"run": begun}, 202)
    ended = await jobs.wait(wish.app, begun, WAIT_DEADLINE)
    if ended is None:
        return json_response({"run": begun, "result": "running"}, 202)
    if ended["result"] == "succeeded":
        return json_response({"run": begun, **ended})
    told = f"the run ended as {ended['result']}"
    raise Problem(409, "JobNotSuccessful", told, members={"run": begun, **ended})


@privileged
async def stop(request: web.Request) -> web.Response:
    """Stop the runs of a job that are under way."""
    wish = await wished(request, StopWish)
    await carried_out(request, request.app[CONTEXT].control.jobs.stop(wish.app, who(request)))
    return json_response({"stopping": wish.app}, 202)
