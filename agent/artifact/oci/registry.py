"""The pulling half of the OCI Distribution Specification 1.1, and docker's token authentication.

GET ─► 200
    ├► 401 Bearer ─► GET realm (with Basic, or a refresh token by POST) ─► token, kept ─► GET again
    ├► 401 Basic  ─► GET again with Basic
    └► 307 ─► storage elsewhere, without what was secret
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
import msgspec
from yarl import URL

from agent.artifact.http_client import HttpClient, refusal, telling
from agent.artifact.limits import Limits
from agent.artifact.oci import credentials
from agent.artifact.oci.credentials import Login
from agent.artifact.oci.manifest import ACCEPTED, INDEX
from agent.artifact.oci.problems import broken
from agent.artifact.resume import ANSWERS, Download
from agent.artifact.source import Body, Have
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.domain.oci_reference import Reference

_MANIFEST = 4 * 1024 * 1024  # bytes; what registries allow
_TOKEN = 256 * 1024  # bytes of a token service's answer
_EARLY = 10.0  # seconds before its end a token is not used any more
_SHORTEST = 60.0  # seconds a token is good for at least, by the specification
_LONGEST = 3600.0
_HUB = "registry-1.docker.io"
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*"([^"]*)"')


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Grant:
    header: str
    until: float  # time.monotonic()


class Registry:
    """Asks registries, with the credentials of `auth_file` (see `credentials`), over `client`.

    Args:
        insecure: HOST[:PORT] of registries that are spoken to in plain http.
    """

    def __init__(
        self, client: HttpClient, limits: Limits, auth_file: Path | None, insecure: Collection[str]
    ) -> None:
        self._client = client
        self._limits = limits
        self._auth_file = auth_file
        self._insecure = frozenset(host.lower() for host in insecure)
        self._grants: dict[tuple[str, str], _Grant] = {}
        self._asking: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def manifest(self, reference: Reference, wanted: str) -> bytes:
        """The manifest of this tag, or digest (`sha256:HEX`), which it then has. Raises Failure."""
        where = shown(reference, wanted)
        async with self._open(reference, f"manifests/{wanted}", where, ACCEPTED) as response:
            with telling(where):
                data = await _bounded(response, _MANIFEST, where)
        algorithm, colon, expected = wanted.partition(":")
        if colon and hashlib.new(algorithm, data).hexdigest() != expected:
            raise Permanent("ChecksumMismatch", "the registry holds another manifest", where=where)
        return data

    async def digest(self, reference: Reference, wanted: str) -> str:
        """`sha256:HEX` of what this tag (or digest) names now; "" when it names nothing. Raises Failure."""
        where = shown(reference, wanted)
        try:
            async with self._open(
                reference, f"manifests/{wanted}", where, ACCEPTED, method="HEAD"
            ) as response:
                told = response.headers.get("Docker-Content-Digest", "")
        except Permanent as failure:
            if failure.reason == "ArtifactNotFound":
                return ""
            raise
        if told.startswith("sha256:"):
            return told
        return "sha256:" + hashlib.sha256(await self.manifest(reference, wanted)).hexdigest()

    async def referrers(self, reference: Reference, digest: str) -> bytes:
        """What the registry says refers to this digest: its first page of an index, if it is one.

        See "Listing Referrers". Raises Failure; Permanent when it does not know of such lists.
        """
        where = shown(reference, digest)
        async with self._open(reference, f"referrers/{digest}", where, INDEX) as response:
            with telling(where):
                return await _bounded(response, _MANIFEST, where)

    async def small(self, reference: Reference, digest: str, most: int) -> bytes:
        """The bytes of this sha256, which they have; at most so many. Raises Failure."""
        where = shown(reference, digest)
        async with self._open(reference, f"blobs/{digest}", where, "*/*") as response:
            with telling(where):
                data = await _bounded(response, most, where)
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise Permanent("ChecksumMismatch", "the registry holds other bytes", where=where)
        return data

    @asynccontextmanager
    async def blob(
        self, reference: Reference, digest: str, have: Have | None = None
    ) -> AsyncIterator[Body | None]:
        """The bytes of this digest, which nobody has checked yet. See Source.open. Raises Failure."""
        where = shown(reference, digest)

        def ask(more: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            return self._open(reference, f"blobs/{digest}", where, "*/*", more=more)

        async with Download(ask, where, self._limits) as download:
            yield await download.open(have)

    async def prewarm(self, reference: Reference) -> None:
        """Open a connection that the next request finds ready. Never fails."""
        try:
            async with asyncio.timeout(self._limits.connect):
                (await self._client.request("GET", URL(self._base(reference)), {})).release()
        except (aiohttp.ClientError, OSError, ValueError, Failure):
            return  # the real request will tell

    def _base(self, reference: Reference) -> str:
        scheme = "http" if reference.host.lower() in self._insecure else "https"
        host = _HUB if reference.host.lower() == "docker.io" else reference.host
        return f"{scheme}://{host}/v2/"

    @asynccontextmanager
    async def _open(
        self,
        reference: Reference,
        path: str,
        where: str,
        accept: str,
        method: str = "GET",
        more: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": accept, **(more or {})}
        url = f"{self._base(reference)}{reference.name}/{path}"
        key = reference.host.lower(), reference.name
        used = self._grants.get(key)
        response = await self._ask(method, url, where, headers, used)
        if response.status == 401:
            challenge = response.headers.get("WWW-Authenticate", "")
            response.release()
            async with self._asking.setdefault(key, asyncio.Lock()):
                if self._grants.get(key) is used:  # nobody else got a new one meanwhile
                    self._grants[key] = await self._authenticate(reference, challenge, where)
                grant = self._grants[key]
            response = await self._ask(method, url, where, headers, grant)
        try:
            if response.status not in (ANSWERS if more else (200,)):
                raise _refusal(response, reference, where)
            yield response
        finally:
            response.release()

    async def _ask(
        self, method: str, url: str, where: str, headers: Mapping[str, str], grant: _Grant | None
    ) -> aiohttp.ClientResponse:
        secret = {"Authorization": grant.header} if grant and grant.until > time.monotonic() else {}
        with telling(where):
            return await self._client.follow(url, headers, secret=secret, method=method)

    async def _authenticate(self, reference: Reference, challenge: str, where: str) -> _Grant:
        """Get what the challenge asks for (RFC 9110 section 11.6.1). Raises Failure."""
        login = await asyncio.to_thread(credentials.find, self._auth_file, reference.host, reference.name)
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic" and login.basic:
            return _Grant(login.basic, time.monotonic() + _LONGEST)
        if kind == "bearer" and login.access:
            return _Grant(f"Bearer {login.access}", time.monotonic() + _LONGEST)
        if kind == "bearer":
            return await self._token(reference, dict(_PARAMETER.findall(challenge)), login, where)
        raise _denied("the registry asks for a login", reference, where)

    async def _token(self, reference: Reference, asked: dict[str, str], login: Login, where: str) -> _Grant:
        try:
            realm = URL(asked.get("realm", ""))
        except ValueError:
            realm = URL()
        plain = realm.scheme == "http" and reference.host.lower() in self._insecure
        if not realm.host or realm.user or not (realm.scheme == "https" or plain):
            raise broken("the registry names no token service that may be asked", where)
        wanted = {"service": asked.get("service", ""), "scope": f"repository:{reference.name}:pull"}
        with telling(where):
            if login.refresh:
                form = {
                    "grant_type": "refresh_token",
                    "refresh_token": login.refresh,
                    "client_id": "emptybox",
                }
                response = await self._client.request("POST", realm, {}, form | wanted)
            else:
                header = {"Authorization": login.basic} if login.basic else {}
                response = await self._client.request("GET", realm.update_query(wanted), header)
            try:
                if response.status != 200:
                    raise _refusal(response, reference, where, "the token service")
                data = await _bounded(response, _TOKEN, where)
            finally:
                response.release()
        return _grant(data, where)


def shown(reference: Reference, wanted: str) -> str:
    """For people: what was asked for."""
    mark = "@" if ":" in wanted else ":"
    return f"oci://{reference.host}/{reference.name}{mark}{wanted}"


def _grant(data: bytes, where: str) -> _Grant:
    try:
        answer = msgspec.json.decode(data, type=_Token)
    except (ValueError, RecursionError):
        raise Transient("ArtifactUnavailable", "the token service answered no token", where=where) from None
    token = answer.token or answer.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise Transient("ArtifactUnavailable", "the token service answered no token", where=where)
    seconds = min(max(answer.expires_in or _SHORTEST, _SHORTEST), _LONGEST)
    return _Grant(f"Bearer {token}", time.monotonic() + seconds - _EARLY)


async def _bounded(response: aiohttp.ClientResponse, most: int, where: str) -> bytes:
    """A whole body, and not more of it. Raises Permanent."""
    pieces, size = [], 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > most:
            raise Permanent("ArtifactTooLarge", f"more than {most} bytes, where no more belong", where=where)
        pieces.append(piece)
    return b"".join(pieces)


def _refusal(
    response: aiohttp.ClientResponse, reference: Reference, where: str, who: str = "the registry"
) -> Failure:
    """What a status other than 200 means; 401 is met here only after a login, or without one to be had."""
    if response.status in (401, 403):
        return _denied(f"{who} answered {response.status}", reference, where)
    return refusal(response, where, who)


def _denied(message: str, reference: Reference, where: str) -> OperatorNeeded:
    return OperatorNeeded(
        "ArtifactDenied",
        message,
        where=where,
        remedy=f"add a login for {reference.host} that may pull it to what --registry-auth-file names",
    )
