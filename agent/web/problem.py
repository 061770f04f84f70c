"""Errors as RFC 9457 problem details, whatever raised them, and the headers of every answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from agent.domain.control import NotPossible, UnknownApp
from agent.domain.errors import Failure, FailureKind
from agent.kit.mask import secrets
from agent.status.picture import failure_json

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS_OF_FAILURE = {
    FailureKind.TRANSIENT: 503,
    FailureKind.PERMANENT: 422,
    FailureKind.OPERATOR: 409,
}

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Problem(Exception):
    """A request that is refused.

    Args:
        status: HTTP status code.
        reason: CamelCase word for programs.
        detail: a sentence for people: what is wrong and what to do.
        headers: further headers of the answer.
        members: further members of the problem (RFC 9457, section 3.2).
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self) -> web.Response:
        """The answer, as application/problem+json."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            **self.members,
        }
        return web.Response(
            status=self.status,
            body=encode(secrets.data(body)),
            content_type="application/problem+json",
            headers=self.headers,
        )


def encode(data: Any) -> bytes:
    """JSON for people and programs: indented, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with secrets masked."""
    body = encode(secrets.data(data))
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into problem details; what nobody expects is logged and told as 500."""
    try:
        return await handler(request)
    except Problem as problem:
        return _refused(request, problem)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _refused(request, _from_http(request, error))
    except UnknownApp as error:
        return Problem(404, "UnknownApp", str(error.args[0] if error.args else error)).response()
    except NotPossible as error:
        return Problem(409, "NotPossible", str(error)).response()
    except Failure as failure:
        return _from_failure(failure).response()
    except TimeoutError:
        return Problem(504, "TooSlow", "the answer was not there in time; try again").response()
    except ConnectionError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return Problem(500, "InternalError", "a defect of the agent; its log has the trace").response()


def _refused(request: web.Request, problem: Problem) -> web.Response:
    response = problem.response()
    if request.can_read_body and not request.content.at_eof():
        response.force_close()  # what is still to come will not be read
    return response


def _from_http(request: web.Request, error: web.HTTPException) -> Problem:
    headers = {name: value for name, value in error.headers.items() if name in ("Allow", "Retry-After")}
    title = HTTPStatus(error.status).phrase
    details = {
        404: f"nothing is at {request.path[:200]}; / shows what this agent does",
        405: f"{request.method} is not possible here; {headers.get('Allow', 'another method')} is",
        413: "the body is too large",
    }
    reason = "".join(word.capitalize() for word in title.replace("-", " ").split())
    return Problem(error.status, reason, details.get(error.status, title), headers=headers)


def _from_failure(failure: Failure) -> Problem:
    info = failure.info
    headers = {}
    if info.kind is FailureKind.TRANSIENT:
        headers["Retry-After"] = str(max(1, round(failure.retry_after or 5)))
    members = {"failure": failure_json(info)}
    return Problem(_STATUS_OF_FAILURE[info.kind], info.reason, str(info), headers=headers, members=members)


async def secure(_request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer (a signal of aiohttp: before headers are sent)."""
    response.headers["Server"] = "emptybox"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
