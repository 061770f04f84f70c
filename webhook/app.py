"""`POST /webhook`: a forge's delivery is bounded, told apart, verified, read and answered.

    405 not POST · 429 this source was refused too often · 503 no secret configured, or too much is being read
    at once · 400 unknown forge, not JSON, not this forge's document · 413 over 3 MiB · 415 compressed · 408
    sent too slowly · 401 signature, token or time
    each as problem+json (RFC 9457) with a `reason`

    200 {"verdict": "pong"}                              the forge's test
    200 {"verdict": "ignored", "reason"}                 another event, repository, branch or artifact
    202 {"verdict": "accepted"|"merged", "sync", "merged"}
    200 {"verdict": "duplicate", "sync", "reason"}       this delivery was answered before; nothing is started

With `?wait=1` the answer to a push that has a sync comes when the sync has ended: 200 with its `result` if
what was pushed runs, and 409 with the `result` and its failure if not: a failed deployment never reads as
success, and as it is no 5xx, nobody on the way repeats it or puts a page of his own in its place. 202 with
`"result": "probation"` while what was pushed runs and is watched, or `"running"` at the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from webhook.deliveries import Deliveries
from webhook.event import ArtifactEvent, Event, Hint, OtherEvent, Ping, Pushes, PushEvent
from webhook.forges import FORGES, tell_apart
from webhook.payloads.forge import QUERY_TOKEN, Forge, Headers, PayloadInvalid
from webhook.problem import Problem
from webhook.signature import SecretsInvalid, SignatureRefused
from webhook.sink import DUPLICATE, IGNORED, ON_PROBATION, REJECTED, SUCCESS, Sink, Verdict
from webhook.sources import Network, Refusals, source_of

log = logging.getLogger(__name__)

BODY_LIMIT = 3 * 1024 * 1024  # bytes
BODY_DEADLINE = 10.0  # seconds for the whole body; forges themselves give up after 5 to 10
WAIT_DEADLINE = 900.0  # seconds that ?wait=1 waits at most
READING_LIMIT = 48 * 1024 * 1024  # bytes of bodies held at once, over all connections
COUNTED = frozenset({400, 401, 408, 413, 415})  # answers that count against their source
INLINE = 128 * 1024  # bytes up to which a body is verified and read on the event loop: about 0.5 ms


class Receiver:
    """Answers deliveries; `handle` is an aiohttp handler for every method of one path.

    Args:
        sink: where pushes go.
        secrets: the secrets valid now, asked for on each delivery; more than one during a rotation. Empty
            ones are passed over. When it raises OSError or SecretsInvalid, logged once, there are none.
        body_deadline: seconds for the whole body.
        wait_deadline: seconds that `?wait=1` waits at most.
        reading_limit: bytes of bodies held at once, over all connections.
        forges: who is understood, in the order in which they are asked.
        proxies: networks of proxies whose X-Forwarded-For is believed.
        refusals: how many refusals a source is given.
    """

    def __init__(
        self,
        sink: Sink,
        secrets: Callable[[], Sequence[bytes]],
        *,
        body_deadline: float = BODY_DEADLINE,
        wait_deadline: float = WAIT_DEADLINE,
        reading_limit: int = READING_LIMIT,
        forges: Sequence[Forge] = FORGES,
        proxies: Sequence[Network] = (),
        refusals: Refusals | None = None,
    ) -> None:
        self._sink = sink
        self._secrets = secrets
        self._body_deadline = body_deadline
        self._wait_deadline = wait_deadline
        self._reading_limit = reading_limit
        self._forges = forges
        self._proxies = proxies
        self._refusals = refusals if refusals is not None else Refusals()
        self._reading = 0
        self._unreadable = False
        self._deliveries = Deliveries()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.method != "POST":
            allow = {"Allow": "POST"}
            return Problem(405, "MethodNotAllowed", "deliveries are sent by POST", headers=allow).response()
        source = source_of(
            request.remote or "", ",".join(request.headers.getall("X-Forwarded-For", ())), self._proxies
        )
        headers = _headers(request)
        forge = tell_apart(headers, self._forges)
        try:
            self._refuse_by_source(source)
            event = await self._event(request, forge, headers)
        except Problem as problem:
            if problem.status in COUNTED:
                self._refusals.refused(source)
            self._sink.heard(REJECTED, problem.reason, forge.name if forge else "")
            response = problem.response()
            if not request.content.at_eof():
                response.force_close()
            return response
        return await self._act(event, wait=_wants_to_wait(request))

    async def _act(self, event: Event, *, wait: bool) -> web.Response:
        match event:
            case PushEvent():
                return await self._taken(event, lambda: self._sink.accept((event,)), wait=wait)
            case Pushes():
                if not event.changes:
                    return self._ignore(event, "the push changes no ref")
                return await self._taken(event, lambda: self._sink.accept(event.changes), wait=wait)
            case ArtifactEvent():
                return await self._taken(event, lambda: self._sink.accept_artifact(event), wait=wait)
            case Hint():
                return await self._taken(event, lambda: self._sink.accept_hint(event), wait=wait)
            case Ping():
                return self._pong(event)
            case OtherEvent():
                name = event.name
                told = f"the event {name} is not a push" if name else "the event has no usable name"
                return self._ignore(event, told)

    def _refuse_by_source(self, source: str) -> None:
        seconds = self._refusals.wait(source)
        if seconds > 0:
            detail = "too many deliveries from this address were refused; it is not heard for a while"
            raise Problem(429, "TooManyRefused", detail, headers={"Retry-After": str(math.ceil(seconds))})

    async def _event(self, request: web.Request, forge: Forge | None, headers: Headers) -> Event:
        """What the delivery says, once it is proved genuine. Raises Problem."""
        secrets = self._secrets_now()
        if forge is None:
            known = ", ".join(one.name for one in self._forges)
            raise Problem(400, "ForgeUnknown", f"no header names a sender known here: {known}")
        body = bytearray()
        try:
            await self._read(request, body)
            if len(body) <= INLINE:
                return _verified(forge, headers, bytes(body), secrets)
            return await asyncio.to_thread(_verified, forge, headers, bytes(body), secrets)
        finally:
            self._reading -= len(body)

    def _secrets_now(self) -> list[bytes]:
        try:
            secrets = [secret for secret in self._secrets() if secret]
        except (OSError, SecretsInvalid) as error:
            if not self._unreadable:  # once: anybody can send requests
                log.error("the webhook's secrets cannot be read: %s", error)
            self._unreadable = True
            raise Problem(
                503, "SecretUnreadable", "the file with the webhook's secret cannot be read"
            ) from None
        self._unreadable = False
        if not secrets:
            raise Problem(
                503,
                "SecretMissing",
                "no webhook secret is configured, so no delivery can be trusted; set one",
            )
        return secrets

    async def _read(self, request: web.Request, body: bytearray) -> None:
        """Append the body as it was sent; what is in `body` counts as being read. Raises Problem."""
        _refuse_by_headers(request)
        try:
            async with asyncio.timeout(self._body_deadline):
                async for chunk in request.content.iter_any():
                    if len(body) + len(chunk) > BODY_LIMIT:
                        raise _too_large()
                    if self._reading + len(chunk) > self._reading_limit:
                        raise Problem(
                            503, "Busy", "too much is being received at once", headers={"Retry-After": "10"}
                        )
                    body += chunk
                    self._reading += len(chunk)
        except TimeoutError:
            detail = f"the body did not arrive within {self._body_deadline:g} s"
            raise Problem(408, "BodyTooSlow", detail) from None
        except (ConnectionError, HttpProcessingError, web.RequestPayloadError):
            raise Problem(400, "BodyBroken", "the body ended early or is framed wrongly") from None

    async def _taken(self, event: Event, accept: Callable[[], Verdict], *, wait: bool) -> web.Response:
        """Have an event judged, unless it was before."""
        earlier = self._deliveries.earlier(event.forge, event.delivery)
        verdict = earlier or accept()
        if earlier is None:
            self._deliveries.remember(event.forge, event.delivery, verdict)
        else:
            self._sink.heard(DUPLICATE, "this delivery was answered before", _name(event))
        answer = _answer(verdict, duplicate=earlier is not None)
        if wait and verdict.sync:
            return await self._ended(verdict.sync, answer)
        return _json(202 if verdict.sync and earlier is None else 200, answer)

    async def _ended(self, sync: str, answer: Mapping[str, object]) -> web.Response:
        end = await self._sink.wait(sync, self._wait_deadline)
        if end is None:
            return _json(202, {**answer, "result": "running"})
        if end.get("result") in SUCCESS:
            return _json(200, {**answer, **end})
        if end.get("result") == ON_PROBATION:
            return _json(202, {**answer, **end})
        detail = f"what was pushed does not run: the sync ended as {end.get('result')}"
        return Problem(409, "SyncNotSuccessful", detail, members={**answer, **end}).response()

    def _pong(self, event: Ping) -> web.Response:
        reason = "the signature is right; pushes will be heard"
        self._sink.heard(IGNORED, "ping", _name(event))
        return _json(200, {"verdict": "pong", "forge": event.forge, "reason": reason})

    def _ignore(self, event: Event, reason: str) -> web.Response:
        self._sink.heard(IGNORED, reason, _name(event))
        return _json(200, {"verdict": IGNORED, "reason": reason})


def _headers(request: web.Request) -> Headers:
    """Those of the request, and the token of the URL, which is all that some senders can be given."""
    if "token" not in request.query_string:
        return request.headers
    token = request.query.get("token", "")
    return ChainMap({QUERY_TOKEN: token}, request.headers) if token else request.headers  # type: ignore[arg-type]


def _refuse_by_headers(request: web.Request) -> None:
    """Refuse what need not be read. Raises Problem."""
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_large()
    # The server would inflate it, and signatures are made of what is sent; no forge compresses.
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "BodyCompressed", "send the body without a content encoding")


def _too_large() -> Problem:
    return Problem(413, "BodyTooLarge", f"a delivery may have at most {BODY_LIMIT} bytes")


def _verified(forge: Forge, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> Event:
    """Verify, then read: nothing of a body is looked into before its signature is known. Raises Problem."""
    try:
        return forge.read(headers, forge.verify(headers, body, secrets))
    except SignatureRefused as error:
        challenge = {"WWW-Authenticate": f'{error.challenge} realm="webhook"'}
        raise Problem(401, error.reason, str(error), headers=challenge) from None
    except PayloadInvalid as error:
        raise Problem(400, "PayloadInvalid", str(error)) from None


def _wants_to_wait(request: web.Request) -> bool:
    return request.query.get("wait", "").lower() in ("1", "true", "yes")


def _answer(verdict: Verdict, *, duplicate: bool) -> dict[str, object]:
    answer: dict[str, object] = {"verdict": DUPLICATE if duplicate else verdict.verdict}
    if verdict.sync:
        answer |= {"sync": verdict.sync, "merged": verdict.verdict == "merged"}
    if duplicate:
        answer |= {"reason": f"this delivery was answered before: {verdict.reason or verdict.verdict}"}
    elif verdict.reason:
        answer |= {"reason": verdict.reason}
    return answer


def _name(event: Event) -> str:
    return f"{event.forge} {event.delivery}".strip()


def _json(status: int, answer: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")
