"""http:// and https:// (RFC 9110): streamed, identity encoding, connections kept for the next deploy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp

from agent.artifact.http_client import SCHEMES, HttpClient, parse_url, refusal, telling
from agent.artifact.limits import Limits
from agent.artifact.source import Body, shown
from agent.domain.errors import Failure


class HttpSource:
    """Fetches through `client`, which others may use too. `tls` replaces the system's trust store."""

    schemes: tuple[str, ...] = SCHEMES

    def __init__(self, limits: Limits, *, tls: ssl.SSLContext | None = None) -> None:
        self.client = HttpClient(limits, tls=tls)
        self._limits = limits

    @asynccontextmanager
    async def open(self, url: str, *, unless: str = "") -> AsyncIterator[Body | None]:
        """See Source.open. The validator is the ETag, else Last-Modified."""
        headers = {}
        if unless.endswith('"'):
            headers["If-None-Match"] = unless
        elif unless:
            headers["If-Modified-Since"] = unless
        where = shown(url)
        with telling(where):
            response = await self.client.follow(url, headers)
        try:
            if response.status == HTTPStatus.NOT_MODIFIED and unless:
                yield None
                return
            if response.status != HTTPStatus.OK:
                raise refusal(response, where)
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            yield body_of(response, where, validator)
        finally:
            response.release()  # reused when read to its end, else closed

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


def body_of(response: aiohttp.ClientResponse, where: str, validator: str = "") -> Body:
    """The body of an answer, as a stream. The answer stays the caller's to release."""
    content = response.content

    async def read() -> bytes:
        with telling(where):
            return await content.readany()

    return Body(response.content_length, validator, read)
