"""Errors as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web


class Problem(Exception):
    """A request that is refused.

    Args:
        status: HTTP status code.
        reason: CamelCase word for programs and metrics.
        detail: a sentence for people: what is wrong and what to do. No secrets, nothing of the body.
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
        members: Mapping[str, object] | None = None,
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
            body=msgspec.json.encode(body),
            content_type="application/problem+json",
            headers=self.headers,
        )
