"""http:// and https:// (RFC 9110): streamed, identity encoding, connections kept for the next deploy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus

import aiohttp

from agent.artifact.http_access import HttpAccess, authorization
from agent.artifact.http_client import SCHEMES, HttpClient, parse_url, refusal, telling
from agent.artifact.limits import Limits
from agent.artifact.resume import ANSWERS, Download
from agent.artifact.source import Body, Have, shown
from agent.domain.errors import Failure

_GIVE = "give it a login: a line for its host in what --netrc-file names, or `artifact.headers`"
_CORRECT = "correct the login that it is given (--netrc-file, or `artifact.headers`), or what that may read"


class HttpSource:
    """Fetches through `client`, which others may use too."""

    schemes: tuple[str, ...] = SCHEMES

    def __init__(self, limits: Limits, access: HttpAccess | None = None) -> None:
        self.client = HttpClient(limits, access)
        self._limits = limits

    def open(
        self, url: str, *, unless: str = "", have: Have | None = None
    ) -> AbstractAsyncContextManager[Body | None]:
        """See Source.open. The validator is the ETag, else Last-Modified."""
        return self.open_with({}, url, unless=unless, have=have)

    @asynccontextmanager
    async def open_with(
        self, secret: Mapping[str, str], url: str, *, unless: str = "", have: Have | None = None
    ) -> AsyncIterator[Body | None]:
        """See Source.open; with headers that only the origin of `url` gets, beside a login for its host."""
        headers = {}
        if unless.endswith('"'):
            headers["If-None-Match"] = unless
        elif unless:
            headers["If-Modified-Since"] = unless
        where = shown(url)
        if not any(name.lower() == "authorization" for name in secret):
            login = await authorization(self.client.access.logins, parse_url(url))
            secret = {**secret, "Authorization": login} if login else secret

        @asynccontextmanager
        async def ask(more: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
            with telling(where):
                response = await self.client.follow(url, {**headers, **more}, secret=secret)
            try:
                wanted = ANSWERS if more else (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED if unless else 0)
                if response.status not in wanted:
                    raise refusal(response, where, remedy=_CORRECT if secret else _GIVE)
                yield response
            finally:
                response.release()  # reused when read to its end, else closed

        async with Download(ask, where, self._limits) as download:
            yield await download.open(have)

    async def prewarm(self, url: str) -> None:
        """Open a connection that the next `open` of this place finds ready. Never fails."""
        try:
            async with asyncio.timeout(self._limits.connect):
                (await self.client.request("HEAD", parse_url(url), {})).release()
        except (aiohttp.ClientError, OSError, Failure):
            return  # the real request will tell

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()
