"""One HTTP client for everything that fetches artifacts (RFC 9110): streamed, as the bytes are.

Redirects are followed here, not by the client library: at most a few, never from https to http, and what is
secret goes to no other place than the one it was meant for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
from yarl import URL

from agent.artifact.http_access import HttpAccess, Trust
from agent.artifact.http_proxy import proxy_for
from agent.artifact.limits import Limits
from agent.artifact.source import shown
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient

SCHEMES = ("http", "https")
_KEEP_ALIVE = 120.0  # seconds; servers often end it earlier, a push often comes within
_BUFFER = 256 * 1024  # reading stops while twice this waits to be taken
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "emptybox"}
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_WAIT = 3600.0  # seconds, bound of a Retry-After we obey


class HttpClient:
    """One session for the agent's life."""

    def __init__(self, limits: Limits, access: HttpAccess | None = None) -> None:
        self._limits = limits
        self.access = access or HttpAccess()
        self.trust = Trust(self.access.authority)
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, url: URL, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """One exchange, redirects not followed. `release` the answer; read errors as `telling` does."""
        context = await self.trust.context() if url.scheme == "https" else True
        way = proxy_for(url)
        headers = {**_HEADERS, **headers, **way.pop("headers", {})}
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE),
                timeout=aiohttp.ClientTimeout(
                    total=None,  # the delivery has a deadline of its own
                    connect=self._limits.connect,
                    sock_read=self._limits.idle,
                ),
                auto_decompress=False,  # the digest is that of the bytes as they are
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_BUFFER,
            )
        return await self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False, ssl=context, **way
        )

    async def follow(
        self,
        text: str,
        headers: Mapping[str, str],
        *,
        secret: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> aiohttp.ClientResponse:
        """Ask for `text`, through redirects. `secret` headers go to its own origin only. Raises Failure."""
        first = url = parse_url(text)
        for _ in range(self._limits.redirects + 1):
            own = _origin(url) == _origin(first)
            if own and secret:  # a login stands in it or nowhere: the library takes no second one
                response = await self.request(method, url.with_user(None), {**headers, **secret})
            else:
                response = await self.request(method, url, headers)
            if response.status not in _REDIRECTS:
                return response
            response.release()
            target = url.join(parse_url(response.headers.get("Location", "")))
            if target.scheme not in SCHEMES or not target.host:
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

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs are of one scheme, host and port. Raises Permanent (UrlInvalid)."""
    return _origin(parse_url(one)) == _origin(parse_url(other))


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port


def parse_url(text: str) -> URL:
    """Raises Permanent (UrlInvalid)."""
    try:
        # Escapes are left as they were written: a signature may cover them.
        url = URL(text, encoded=text.isascii() and " " not in text)
        str(url.port)  # looked at only now; raises for what is no port
        return url
    except ValueError:
        raise Permanent("UrlInvalid", "not a valid URL", where=shown(text)) from None


@contextmanager
def telling(where: str) -> Iterator[None]:
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
            remedy="name its authority with --artifact-ca, or add it to the system's (SSL_CERT_FILE)",
        ) from None
    except aiohttp.ClientHttpProxyError as error:
        raise _proxy_refusal(error.status, where) from None
    except aiohttp.ClientProxyConnectionError as error:
        message = f"the proxy cannot be reached: {error.os_error.strerror or type(error).__name__}"
        raise Transient("ArtifactUnavailable", message, where=where) from None
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


def refusal(
    response: aiohttp.ClientResponse,
    where: str,
    who: str = "the server",
    remedy: str = "let this agent read it, or correct its credentials",
) -> Failure:
    """What a status other than 200 means (RFC 9110 section 15). `remedy` is for one that wants a login."""
    status = response.status
    message = f"{who} answered {status}"
    if status in (404, 410):
        return Permanent("ArtifactNotFound", message, where=where, remedy="upload it, or correct the URL")
    if status == 407:
        return _proxy_refusal(status, where)
    if status in (401, 403):
        return OperatorNeeded("ArtifactDenied", message, where=where, remedy=remedy)
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        return Transient("ArtifactUnavailable", message, where=where, retry_after=wait)
    return Permanent("ArtifactRefused", message, where=where)


def _proxy_refusal(status: int, where: str) -> Failure:
    message = f"the proxy does not let us through ({status})"
    if status in (401, 403, 407):
        remedy = "correct HTTP_PROXY or HTTPS_PROXY in the agent's environment, with user and password"
        return OperatorNeeded("ProxyRefused", message, where=where, remedy=remedy)
    return Transient("ArtifactUnavailable", message, where=where)


def _retry_after(text: str) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110 section 10.2.3); None when there is none."""
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time(), 0.0), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None
