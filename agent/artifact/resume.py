"""Asking for the rest of what broke off, where it is sure to be the rest (RFC 9110 sections 13.1.5, 14).

    200, strong ETag, length ─► breaks off ─► Range from here, If-Range ─► 206: the very rest ─► goes on
                                                                       └► anything else: ArtifactChanged

Nothing is guessed: the answer must name the same ETag, begin where we stopped and end where the whole ends,
in identity encoding. And still the digest of the whole decides; whoever carries the bytes begins anew when
it is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

import aiohttp

from agent.artifact.http_client import telling
from agent.artifact.limits import Limits
from agent.artifact.source import Body, Have
from agent.artifact.straight import straight
from agent.domain.errors import Failure, Transient

CHANGED = "ArtifactChanged"
ANSWERS = (200, 206, 416)
"""The statuses that `Ask` lets through when more headers are given; without, only 200, and 304 if asked."""
Ask = Callable[[Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Asks for the bytes with more headers. Raises Failure."""

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})\Z")
_FUTILE = 4  # times in a row that next to nothing came
_NOTHING = 64 * 1024  # bytes that are next to nothing
_PAUSE = 0.25  # seconds before the first of them, doubled for each


class Download:
    """The bytes of one address. A context; `open` it once."""

    def __init__(self, ask: Ask, where: str, limits: Limits) -> None:
        self._ask = ask
        self._where = where
        self._longest = limits.idle
        self._answer = AsyncExitStack()
        self._take: Callable[[], Awaitable[bytes]] | None = None
        self._body: Body | None = None
        self._position = 0
        self._futile = 0
        self._last = 0  # position of the last break

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._answer.aclose()

    async def open(self, have: Have | None = None) -> Body | None:
        """The body, from where `have` ends when that is sure to fit; None for 304. Raises Failure."""
        headers = _rest(have.size, have.validator) if have is not None else {}
        response = await self._next(headers)
        if have is not None and response.status != 200:
            if continues(response, have):
                self._position = have.size
                self._body = Body(have.total, have.validator, self._read, have.size, resumable=True)
                return self._body
            response = await self._next({})
        if response.status == 304:
            return None
        tag = response.headers.get("ETag", "")
        encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
        size = response.content_length
        self._body = Body(
            size,
            tag or response.headers.get("Last-Modified", ""),
            self._read,
            resumable=strong(tag) and bool(size) and not encoded,
        )
        return self._body

    async def _next(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        await self._answer.aclose()
        response = await self._answer.enter_async_context(self._ask(headers))
        body = straight(response, self._longest)
        if body is not None:
            self._answer.callback(body.close)
        self._take = body.read if body is not None else response.content.readany
        return response

    async def _read(self) -> bytes:
        assert self._take is not None
        while True:
            try:
                with telling(self._where):
                    piece = await self._take()
            except Transient as failure:
                await self._mend(failure)
                continue
            self._position += len(piece)
            return piece

    async def _mend(self, failure: Failure) -> None:
        """Go on with an answer that is the rest; raises what stays broken."""
        body = self._body
        assert body is not None
        while True:
            if self._position - self._last >= _NOTHING:
                self._futile = 0
            self._last = self._position
            if not body.resumable or self._futile >= _FUTILE or self._position >= (body.size or 0):
                raise failure
            await asyncio.sleep(max(_PAUSE * 2**self._futile, min(failure.retry_after or 0, self._longest)))
            self._futile += 1
            try:
                response = await self._next(_rest(self._position, body.validator))
            except Transient as again:
                failure = again
                continue
            if not continues(response, Have(self._position, body.size or 0, body.validator)):
                message = "the server has other bytes by now, or does not send a part of them"
                raise Transient(CHANGED, message, where=self._where)
            body.mended = True
            return


def strong(tag: str) -> bool:
    """Whether an ETag is one that same bytes have, and no others (RFC 9110 section 8.8.3)."""
    return len(tag) > 2 and tag.startswith('"') and tag.endswith('"') and len(tag) <= 1024


def continues(response: aiohttp.ClientResponse, have: Have) -> bool:
    """Whether an answer is the very rest of what we have."""
    match = _RANGE.match(response.headers.get("Content-Range", ""))
    return (
        response.status == 206
        and match is not None
        and (int(match[1]), int(match[2]), int(match[3])) == (have.size, have.total - 1, have.total)
        and response.headers.get("ETag") == have.validator
        and response.headers.get("Content-Encoding", "identity").lower() == "identity"
        and response.content_length in (None, have.total - have.size)
    )


def _rest(size: int, validator: str) -> dict[str, str]:
    return {"Range": f"bytes={size}-", "If-Range": validator}
