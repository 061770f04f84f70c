"""Sending over HTTP (RFC 9110): whole bodies, redirects that keep them, deadlines, and who we say we are.

Proxies come from where programs of CI look for them: HTTPS_PROXY and the like; a private authority from
SSL_CERT_FILE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from agent.artifact.http_proxy import proxy_for
from agent.artifact.source import shown
from agent.domain.errors import Failure
from agent.publish.pack import Tell
from agent.publish.trouble import Trouble

_PIECE = 1 << 18
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 5
CONNECT, IDLE = 15.0, 120.0  # seconds; a server may think for long about a large body


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send. `tell` hears how far it is."""

    path: Path
    size: int
    tell: Tell


class Sender:
    """One session; use it as a context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_read=IDLE),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        secret: Mapping[str, str] | None = None,
        body: Upload | bytes | Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, through redirects; `secret` headers go to the URL's own origin only.

        A body is sent again after each redirect, and redirects that would drop it (301 to 303) are refused.
        Raises Trouble, also while the answer is read: passing where trying again may help.
        """
        where = shown(url)
        first = target = _url(url)
        assert self._session is not None
        with _telling(where):
            for _ in range(_HOPS + 1):
                own = target.origin() == first.origin()
                everything = {"Accept-Encoding": "identity", "User-Agent": "emptybox", **headers}
                response = await self._send(
                    method, target, {**everything, **(secret or {})} if own else everything, body
                )
                try:
                    if response.status not in _REDIRECTS:
                        yield response
                        return
                    target = _next(response, target, where, keeps_body=body is not None)
                finally:
                    response.release()
        raise Trouble(f"{where}: more than {_HOPS} redirects")

    async def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: Upload | bytes | Mapping[str, str] | None,
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        try:
            way = proxy_for(url)
        except Failure as failure:
            raise Trouble.of(failure) from None
        headers = {**headers, **way.pop("headers", {})}
        if not isinstance(body, Upload):
            return await self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, **way
            )
        lasting = asyncio.get_running_loop().time
        async with asyncio.timeout(CONNECT + IDLE) as patience:

            async def pieces() -> AsyncIterator[bytes]:
                done = 0
                with body.path.open("rb") as file:
                    while piece := await asyncio.to_thread(file.read, _PIECE):
                        patience.reschedule(lasting() + IDLE)
                        yield piece
                        done += len(piece)
                        body.tell(done, body.size)

            sized = {**headers, "Content-Length": str(body.size)}
            return await self._session.request(
                method, url, headers=sized, data=pieces(), allow_redirects=False, **way
            )


def refusal(response: aiohttp.ClientResponse, where: str, remedy: str = "") -> Trouble:
    """What an unwelcome status means."""
    status = response.status
    if status in (401, 403, 407):
        return Trouble(
            f"{where}: the server answered {status}", remedy or "give credentials that may write there"
        )
    passing = status in (408, 423, 425, 429) or status >= 500
    asked = response.headers.get("Retry-After", "")
    wait = float(asked[:6]) if asked.isascii() and asked.isdigit() else None
    said = f"{where}: the server answered {status} {(response.reason or '')[:100]}".rstrip()
    return Trouble(said, passing=passing, wait=wait)


def _url(text: str) -> URL:
    try:
        url = URL(text, encoded=text.isascii() and " " not in text)
        if url.scheme not in ("http", "https") or not url.host or url.port is None:
            raise ValueError
    except ValueError:
        raise Trouble(f"{shown(text)}: not a URL of http") from None
    return url


def _next(response: aiohttp.ClientResponse, url: URL, where: str, *, keeps_body: bool) -> URL:
    location = response.headers.get("Location", "")
    if keeps_body and response.status not in (307, 308):
        raise Trouble(
            f"{where}: redirected by {response.status}, which drops what is sent", "name the final address"
        )
    target = url.join(_url(location) if "://" in location else URL(location, encoded=location.isascii()))
    if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
        raise Trouble(f"{where}: redirected to {shown(str(target))}, which is not https")
    return target.with_user(None)


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Tell the library's errors as Trouble; their texts may hold a whole URL and are not all shown."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise Trouble(
            f"{where}: the server's certificate is not trusted: {error.certificate_error}",
            "name its authority with SSL_CERT_FILE",
        ) from None
    except TimeoutError:
        raise Trouble(f"{where}: the server fell silent", passing=True) from None
    except (aiohttp.ClientResponseError, aiohttp.InvalidURL):
        raise Trouble(f"{where}: what answers there is not HTTP", passing=True) from None
    except (aiohttp.ClientError, OSError) as error:
        raise Trouble(f"{where}: {str(error)[:200] or type(error).__name__}", passing=True) from None
