"""What operators ask for: POST /sync /rollback /retry /promote /abort /pause /resume /upgrade.

Arguments come as a JSON object or as query parameters. A wish that becomes a sync is answered 202 with
its id at once; with `?wait=1` when it has ended: 200 if it succeeded or changed nothing, 409 with the
result and the failure if not (no 5xx: nobody on the way shall repeat it), 202 while a release is on
probation or when the deadline passes first. A client that goes away cancels its waiting, not its wish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from agent.domain.control import Accepted
from agent.domain.events import SyncFinished
from agent.domain.model import SyncResult
from agent.status.picture import whole_failure_json
from agent.web.access import privileged, who
from agent.web.context import CONTEXT
from agent.web.problem import Problem, json_response

BODY_MAX = 64 << 10
BODY_DEADLINE = 10.0  # seconds for a whole body
WAIT_DEADLINE = 900.0  # seconds that ?wait=1 waits at most

Short = Annotated[str, msgspec.Meta(max_length=200)]
Long = Annotated[str, msgspec.Meta(max_length=1000)]
T = TypeVar("T")


class Wish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of one kind of wish."""


class SyncWish(Wish, frozen=True):
    """POST /sync. `prune_all` allows a state without apps, `accept_history` a push by force.

    `override` goes through a freeze, and says why.
    """

    prune_all: bool = False
    accept_history: bool = False
    override: Long = ""


class RollbackWish(Wish, frozen=True):
    """POST /rollback. `to` is a spec digest or a version; "" the last good one."""

    app: Short
    to: Short = ""


class RetryWish(Wish, frozen=True):
    """POST /retry. `app` "" means all."""

    app: Short = ""


class CanaryWish(Wish, frozen=True):
    """POST /promote and POST /abort."""

    app: Short


class PauseWish(Wish, frozen=True):
    """POST /pause. `message` tells others why."""

    message: Long = ""


class ResumeWish(Wish, frozen=True):
    """POST /resume."""


@privileged
async def sync(request: web.Request) -> web.Response:
    """Look at the truth now."""
    wish = await wished(request, SyncWish)
    control = request.app[CONTEXT].control
    accepted = control.sync(
        who(request),
        prune_all=wish.prune_all,
        accept_history=wish.accept_history,
        override=wish.override,
    )
    return await _answer(request, accepted)


@privileged
async def rollback(request: web.Request) -> web.Response:
    """Back to the good pair, or to a named one."""
    wish = await wished(request, RollbackWish)
    rolling = request.app[CONTEXT].control.rollback(wish.app, who(request), wish.to)
    return await _answer(request, await carried_out(request, rolling))


@privileged
async def retry(request: web.Request) -> web.Response:
    """Take a quarantine off and try again."""
    wish = await wished(request, RetryWish)
    return await _answer(
        request, await carried_out(request, request.app[CONTEXT].control.retry(wish.app, who(request)))
    )


@privileged
async def promote(request: web.Request) -> web.Response:
    """Let the version in canary have every client."""
    wish = await wished(request, CanaryWish)
    promoting = request.app[CONTEXT].control.promote(wish.app, who(request))
    return await _answer(request, await carried_out(request, promoting))


@privileged
async def abort(request: web.Request) -> web.Response:
    """Take its share of the clients from the version in canary; rolled-back is what was asked for."""
    wish = await wished(request, CanaryWish)
    aborting = request.app[CONTEXT].control.abort(wish.app, who(request))
    return await _answer(request, await carried_out(request, aborting), SyncResult.ROLLED_BACK)


@privileged
async def pause(request: web.Request) -> web.Response:
    """Start no runs until `resume`."""
    wish = await wished(request, PauseWish)
    by, message = who(request), wish.message or "paused by an operator"
    await carried_out(request, request.app[CONTEXT].control.pause(message, by))
    return json_response({"paused": {"message": message, "by": by}})


@privileged
async def resume(request: web.Request) -> web.Response:
    """Undo `pause`, and look at the truth."""
    await wished(request, ResumeWish)
    resuming = request.app[CONTEXT].control.resume(who(request))
    return await _answer(request, await carried_out(request, resuming))


@privileged
async def upgrade(request: web.Request) -> web.Response:
    """Make way for the code that is installed now."""
    await wished(request, ResumeWish)
    newer = await carried_out(request, request.app[CONTEXT].control.upgrade(who(request)))
    return json_response({"upgrade": dict(newer)}, 202)


async def carried_out(request: web.Request, wish: Coroutine[Any, Any, T]) -> T:
    """Carry a wish out even if its client goes away in the middle."""
    return await asyncio.shield(request.app[CONTEXT].tasks.start(wish, name=request.path.strip("/")))


async def wished(request: web.Request, kind: type[T]) -> T:
    """The arguments. Raises Problem."""
    body = await _body(request)
    given: Any = {name: value for name, value in request.query.items() if name != "wait"}
    try:
        if body:
            given |= msgspec.json.decode(body, type=dict[str, Any])
        return msgspec.convert(given, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "WishUnclear", f"the arguments are wrong: {error}") from None


async def _body(request: web.Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_MAX:
                    raise Problem(413, "BodyTooLarge", f"a wish may have at most {BODY_MAX} bytes")
    except TimeoutError:
        raise Problem(408, "BodyTooSlow", f"the body did not arrive within {BODY_DEADLINE:g} s") from None
    except web.RequestPayloadError:
        raise Problem(400, "BodyBroken", "the body ended early or is framed wrongly") from None
    if body and request.content_type != "application/json":
        raise Problem(415, "BodyNotJson", "send application/json, or query parameters and no body")
    return bytes(body)


async def _answer(
    request: web.Request, accepted: Accepted, good: SyncResult = SyncResult.SUCCEEDED
) -> web.Response:
    answer: dict[str, Any] = {"sync": accepted.sync, "merged": accepted.merged}
    if request.query.get("wait", "").lower() not in ("1", "true", "yes"):
        return json_response(answer, 202)
    end = await request.app[CONTEXT].control.wait(accepted.sync, WAIT_DEADLINE)
    if end is None:
        return json_response({**answer, "result": str(SyncResult.RUNNING)}, 202)
    answer |= _ended(end)
    if end.result in (good, SyncResult.UNCHANGED):
        return json_response(answer)
    if end.result is SyncResult.PROBATION:
        return json_response(answer, 202)
    raise Problem(409, "SyncNotSuccessful", f"the sync ended as {end.result}", members=answer)


def _ended(end: SyncFinished) -> dict[str, Any]:
    ended = {"result": str(end.result), "commit": end.commit, "seconds": round(end.seconds, 3)}
    return ended if end.failure is None else {**ended, "failure": whole_failure_json(end.failure)}
