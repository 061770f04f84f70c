"""http:// and https:// (RFC 9110): streamed, identity encoding, connections kept for the next deploy.

Redirects are followed here, not by the client library: at most a few, never from https to http, and a
URL's credentials go to no other place than the one they were written for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import time

import aiohttp
from yarl import URL

from agent.artifact.limits import Limits
from agent.artifact.source import Body, shown
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient

_KEEP_ALIVE = 120.0  # seconds; servers often end it earlier, a push often comes within
_BUFFER = 256 * 1024  # reading stops while twice this waits to be taken
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "emptybox"}
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_WAIT = 3600.0  # bound of a Retry-After we obey


class HttpSource:
    """One session for the agent's life. `tls` replaces the system's trust store."""

    schemes: tuple[str, ...] = ("http", "https")

    def __init__(self, limits: Limits, *, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self, url: str, *, unless: str = "") -> AsyncIterator[Body | None]:
        """See Source.open. The validator is the ETag, else Last-Modified."""
        headers = dict(_HEADERS)
        if unless.endswith('"'):
            headers["If-None-Match"] = unless
        elif unless:
            headers["If-Modified-Since"] = unless
        where = shown(url)
        with _telling(where):
            response = await self._follow(url, headers)
        try:
            if response.status == HTTPStatus.NOT_MODIFIED and unless:
                yield None
                return
            if response.status != HTTPStatus.OK:
                raise _refusal(response, where)
            content = response.content

            async def read() -> bytes:
                with _telling(where):
                    return await content.readany()

            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            yield Body(response.content_length, validator, read)
        finally:
            response.release()  # reused when read to its end, else closed

    async def prewarm(self, url: str) -> None:
        """Open a connection that the next `open` of this place finds ready. Never fails."""
        try:
            async with asyncio.timeout(self._limits.connect):
                (await self._request("HEAD", _parse(url), _HEADERS)).release()
        except (aiohttp.ClientError, OSError, Failure):
            return  # the real request will tell

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    keepalive_timeout=_KEEP_ALIVE, ssl=True if self._tls is None else self._tls
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None,  # the delivery has a deadline of its own
                    connect=self._limits.connect,
                    sock_read=self._limits.idle,
                ),
                auto_decompress=False,  # the digest is that of the bytes as they are
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_BUFFER,
            )
        return await self._session.request(method, url, headers=headers, allow_redirects=False)

    async def _follow(self, text: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        url = _parse(text)
        for _ in range(self._limits.redirects + 1):
            response = await self._request("GET", url, headers)
            if response.status not in _REDIRECTS:
                return response
            response.release()
            target = url.join(_parse(response.headers.get("Location", "")))
            if target.scheme not in self.schemes or not target.host:
                raise Permanent("RedirectRefused", "redirected to what is not http", where=shown(text))
            if url.scheme == "https" and target.scheme == "http":
                raise Permanent(
                    "RedirectRefused",
                    f"redirected from https to {shown(str(target))}",
                    where=shown(text),
                    remedy="name the https address itself",
                )
            url = target
        raise Permanent("RedirectRefused", f"more than {self._limits.redirects} redirects", where=shown(text))


def _parse(text: str) -> URL:
    try:
        # Escapes are left as they were written: a signature may cover them.
        url = URL(text, encoded=text.isascii() and " " not in text)
        str(url.port)  # looked at only now; raises for what is no port
        return url
    except ValueError:
        raise Permanent("UrlInvalid", "not a valid URL", where=shown(text)) from None


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Tell the client library's errors as failures. Their texts may hold the whole URL: not all are shown."""
    try:
        yield
    except aiohttp.InvalidURL:
        raise Permanent("UrlInvalid", "not a valid URL", where=where) from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise OperatorNeeded(
            "CertificateRefused",
            f"the server's certificate is not trusted: {error.certificate_error}",
            where=where,
            remedy="add its authority to the system's trust store (SSL_CERT_FILE)",
        ) from None
    except aiohttp.ClientPayloadError:
        raise Transient(
            "ArtifactTruncated", "the connection ended before the body did", where=where
        ) from None
    except TimeoutError:
        raise Transient("ArtifactTimeout", "the server fell silent", where=where) from None
    except aiohttp.ClientResponseError as error:
        message = f"not HTTP: {error.message[:200]!r}"
        raise Transient("ArtifactUnavailable", message, where=where) from None
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(
            "ArtifactUnavailable", str(error)[:300] or type(error).__name__, where=where
        ) from None


def _refusal(response: aiohttp.ClientResponse, where: str) -> Failure:
    """What a status other than 200 means (RFC 9110 section 15)."""
    status = response.status
    message = f"the server answered {status}"
    if status in (404, 410):
        return Permanent("ArtifactNotFound", message, where=where, remedy="upload it, or correct the URL")
    if status in (401, 403, 407):
        return OperatorNeeded(
            "ArtifactDenied",
            message,
            where=where,
            remedy="let this agent read it, or correct its credentials",
        )
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        return Transient("ArtifactUnavailable", message, where=where, retry_after=wait)
    return Permanent("ArtifactRefused", message, where=where)


def _retry_after(text: str) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110 section 10.2.3); None when there is none."""
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time(), 0.0), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None
