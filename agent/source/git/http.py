"""Smart HTTP, gitprotocol-http(5): protocol v2 by GET /info/refs and POST /git-upload-pack.

One session, made at the first request, keeps its connections; it is made anew when a file of its
certificates changed. Credentials are sent with every request to the repository's own origin (scheme,
host, port), or one that the settings map to, and to no other: redirects are followed for the
advertisement alone, three times at most, and within these origins; the place learned so is kept until
`forget`. Proxies of the environment, cookies and compressed answers are not used. Reads have no deadline
of their own: the caller's cancellation closes the connection in use.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.kit.mask import secrets
from agent.source.git import credentials
from agent.source.git.access import HttpAccess
from agent.source.git.address import Address, mask

SERVICE = "git-upload-pack"
ADVERTISEMENT_TYPE = f"application/x-{SERVICE}-advertisement"
REQUEST_TYPE = f"application/x-{SERVICE}-request"
RESULT_TYPE = f"application/x-{SERVICE}-result"
ADVERTISEMENT_MAX = 1 << 20
REDIRECTS_MAX = 3
KEEPALIVE = 300.0  # seconds; longer than the longest usual poll
RETRY_AFTER_MAX = 3600.0
# A connection the server has dropped meanwhile shows when it is used again: as many tries as
# connections are kept, and one on a fresh one. All requests only read, so repeating them is harmless.
CONNECTIONS = 3
TRIES = CONNECTIONS + 1


class HttpTransport:
    """Transport over http:// and https://, see `transport.Transport` for the failures raised."""

    def __init__(
        self,
        address: Address,
        credentials_file: Path | None = None,
        access: HttpAccess | None = None,
        *,
        mirror: bool = False,
    ) -> None:
        """`mirror`: credentials that name no host are meant for another place, not for this one."""
        self._address = address
        self._access = access or HttpAccess()
        self._mirror = mirror
        self._credentials_file = credentials_file
        self._origin = URL(address.shown)
        self._base = self._origin
        self._session: aiohttp.ClientSession | None = None
        self._stamps: object = None  # of the files that the session was made with

    @property
    def where(self) -> str:
        """The URL without credentials."""
        return self._address.shown

    async def advertise(self) -> bytes:
        """The capability advertisement: one GET, and one more for each redirect."""
        url = _below(self._base, "info/refs").with_query(service=SERVICE)
        try:
            for _ in range(REDIRECTS_MAX + 1):
                async with await self._send("GET", url) as response:
                    if response.status not in (301, 302, 303, 307, 308):
                        return await self._advertisement(response, url)
                    url = self._redirected(response, url)
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error) from error
        raise Transient(
            "GitProtocol", f"the server redirects more than {REDIRECTS_MAX} times", where=self.where
        )

    @asynccontextmanager
    async def exchange(self, request: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """One POST; yields the chunks of the response."""
        headers = {"Content-Type": REQUEST_TYPE, "Accept": RESULT_TYPE}
        try:
            async with await self._send("POST", _below(self._base, SERVICE), request, headers) as response:
                self._check(response)
                if response.content_type != RESULT_TYPE:
                    raise self._garbled("the answer is not that of a Git server")
                yield response.content.iter_any()
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(error) from error

    def forget(self) -> None:
        """Go back to the URL of the settings."""
        self._base = self._origin

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self, method: str, url: URL, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        headers = {"Git-Protocol": "version=2", "Accept-Encoding": "identity", **(headers or {})}
        login = self._address.login
        if self._credentials_file is not None:
            login = await asyncio.to_thread(self._read_login, self._credentials_file, url) or login
        if login is not None:
            secrets.add(login[1])
            headers["Authorization"] = credentials.basic(*login)
        for attempt in range(1, TRIES + 1):
            try:
                session = await self._opened()
                return await session.request(
                    method, url, data=body, headers=headers, allow_redirects=False, **self._proxy()
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")

    def _read_login(self, file: Path, url: URL) -> tuple[str, str] | None:
        return credentials.read_login(file, str(url), named_only=self._mirror)

    def _proxy(self) -> dict[str, Any]:
        if not self._access.proxy:
            return {}
        url = URL(self._access.proxy)
        headers = None
        if url.user:
            secrets.add(url.password or "")
            headers = {"Proxy-Authorization": credentials.basic(url.user, url.password or "")}
        return {"proxy": url.with_user(None), "proxy_headers": headers}

    async def _opened(self) -> aiohttp.ClientSession:
        stamps = self._access.stamps()
        if self._session is not None and stamps != self._stamps:
            await self.aclose()
        if self._session is None:
            self._stamps = stamps
            # Our own context: it reads the authorities trusted now, not when aiohttp was imported.
            secure = await asyncio.to_thread(self._tls)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEPALIVE, ssl=secure),
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "User-Agent": "git/emptybox"
                },  # forges tell Git clients by the word before the slash
                auto_decompress=False,
                trust_env=False,
                read_bufsize=1 << 18,
            )
        return self._session

    async def _advertisement(self, response: aiohttp.ClientResponse, url: URL) -> bytes:
        self._check(response)
        if response.content_type != ADVERTISEMENT_TYPE:
            raise OperatorNeeded(
                "GitServerUnsupported",
                "the answer is not that of a smart HTTP Git server",
                where=self.where,
                remedy="check the URL; Git servers over plain files (dumb HTTP) are not supported",
            )
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > ADVERTISEMENT_MAX:
                raise self._garbled(f"the capability advertisement exceeds {ADVERTISEMENT_MAX} bytes")
        self._base = url.with_query(None).with_path(url.raw_path.removesuffix("/info/refs"), encoded=True)
        return bytes(data)

    def _redirected(self, response: aiohttp.ClientResponse, url: URL) -> URL:
        try:
            target = url.join(URL(response.headers.get("Location", "")))
            mapped = self._access.mapped(str(target))
            target = URL(mapped) if mapped is not None else target
            same = (mapped is not None or target.origin() == url.origin()) and not target.user
        except ValueError:
            raise self._garbled("the server redirects to something that is not a URL") from None
        if not same:
            raise OperatorNeeded(
                "RedirectRefused",
                f"the server redirects to another origin, {mask(str(target.with_query(None)))}",
                where=self.where,
                remedy="if that is right, make it the address of the state repository (--repo), or map it"
                " (--git-rewrite)",
            )
        if not target.raw_path.endswith("/info/refs"):
            raise self._garbled("the server redirects to something that is not a Git repository")
        return target.with_query(service=SERVICE)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 200 and response.headers.get("Content-Encoding", "identity") == "identity":
            return
        if status == 200:
            raise self._garbled("the answer is compressed, which was not asked for")
        if status in (401, 403):
            raise OperatorNeeded(
                "GitAuth",
                f"the Git server refuses {'our credentials' if self._has_login() else 'access'} ({status})",
                where=self.where,
                remedy=f"check {self._credentials_file or 'the credentials (--credentials-file)'}"
                " and that they may read this repository",
            )
        if status in (404, 410):
            raise OperatorNeeded(
                "RepositoryNotFound",
                f"the Git server knows no such repository ({status})",
                where=self.where,
                remedy="check the URL; without fitting credentials a private repository looks like this too",
            )
        if status >= 500 or status in (408, 429):
            message = f"the Git server answers {status}"
            raise Transient("GitUnavailable", message, where=self.where, retry_after=_retry_after(response))
        raise self._garbled(f"the Git server answers {status}")

    def _has_login(self) -> bool:
        return self._credentials_file is not None or self._address.login is not None

    def _garbled(self, message: str) -> Transient:
        return Transient("GitProtocol", message, where=self.where)

    def _failure(self, error: aiohttp.ClientError | OSError) -> Failure:
        """What a client error means; its text is not used where it could hold the request's headers."""
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return OperatorNeeded(
                "GitTls",
                f"the Git server's certificate is not accepted: {_ssl_words(error.certificate_error)}",
                where=self.where,
                remedy="have it renewed, or name the authority that signed it (--git-ca)",
            )
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return self._proxy_refused(error)
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            words = f"the TLS handshake failed: {_ssl_words(error.os_error)}"
        elif isinstance(error, aiohttp.ClientConnectorError):
            what = "proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else "Git server"
            words = f"the {what} cannot be reached: {_os_words(error.os_error)}"
        elif isinstance(error, aiohttp.ClientPayloadError):
            words = "the Git server's answer ended in the middle"
        elif isinstance(error, (aiohttp.ServerDisconnectedError, OSError)):
            words = "the Git server closed the connection without an answer"
        else:
            return self._garbled(f"the answer is not proper HTTP ({type(error).__name__})")
        return Transient("GitUnavailable", words, where=self.where)

    def _proxy_refused(self, error: aiohttp.ClientHttpProxyError) -> Failure:
        words = f"the proxy does not let us through ({error.status})"
        if error.status in (401, 403, 407):
            remedy = "check --git-proxy, and its user and password"
            return OperatorNeeded("GitAuth", words, where=self.where, remedy=remedy)
        return Transient("GitUnavailable", words, where=self.where)

    def _tls(self) -> ssl.SSLContext | bool:
        """What certificates are judged by; True is aiohttp's own, where nothing is encrypted. Blocks."""
        access = self._access
        if self._address.scheme != "https" and not access.rewrites and not access.proxy:
            return True
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        file = access.authority
        try:
            if file is not None:
                context.load_verify_locations(cafile=file)
            file = access.certificate
            if file is not None:
                # Without a password given the library would ask the terminal for one.
                context.load_cert_chain(file, access.key, password=lambda: "")
        except OSError as error:  # ssl.SSLError is one
            words = _ssl_words(error) if isinstance(error, ssl.SSLError) else error.strerror
            raise OperatorNeeded(
                "GitTls",
                f"the file cannot be used: {words}",
                where=str(file),
                remedy="name PEM files; the key must not be encrypted",
            ) from error
        return context


def _below(base: URL, path: str) -> URL:
    return base.with_path(f"{base.raw_path.rstrip('/')}/{path}", encoded=True)


def _os_words(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:  # below are those of name resolution
        return os.strerror(error.errno)
    return error.strerror or "none of its addresses answers"


def _ssl_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "reason", None) or type(error).__name__


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """RFC 9110, 10.2.3: seconds or a date; bounded."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)
