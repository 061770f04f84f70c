"""The pushing half of the OCI Distribution Specification 1.1: blobs first, then the manifest that names them.

Directories become the layers of an image, uncompressed, so that what did not change has the digest it had and
is not sent again; files become an artifact as ORAS makes them, each with its name as a title.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from agent.artifact.oci import credentials
from agent.artifact.oci.manifest import ACCEPTED, IMAGE
from agent.domain.errors import Failure
from agent.domain.oci_reference import Reference
from agent.publish.http import Sender, Upload, refusal
from agent.publish.pack import Tell
from agent.publish.places import trying
from agent.publish.trouble import Trouble

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FILE = "application/octet-stream"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_ARTIFACT = "application/vnd.emptybox.release.v1"
_TITLE = "org.opencontainers.image.title"
_ANSWER = 1 << 20  # bytes of what a registry or its token service says
_HUB = "registry-1.docker.io"
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer to push: the archive of a directory, or with a `title` a file of that name."""

    path: Path
    sha256: str
    size: int
    title: str = ""


class Image:
    """Blobs with the configuration and the manifest that hold them together.

    The documents are the same bytes for the same blobs and platform (os, architecture).
    """

    def __init__(self, blobs: Sequence[Blob], platform: tuple[str, str]) -> None:
        self.blobs = tuple(blobs)
        titled = bool(blobs[0].title)
        layers = {"type": "layers", "diff_ids": [f"sha256:{blob.sha256}" for blob in blobs]}
        image = {"architecture": platform[1], "os": platform[0], "config": {}, "rootfs": layers}
        self.config = b"{}" if titled else _json(image)
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": _descriptor(
                _EMPTY if titled else _CONFIG, hashlib.sha256(self.config).hexdigest(), len(self.config)
            ),
            "layers": [_layer(blob) for blob in blobs],
            **({"artifactType": _ARTIFACT} if titled else {}),
        }
        self.manifest = _json(manifest)
        self.sha256 = hashlib.sha256(self.manifest).hexdigest()


class Pusher:
    """Pushes to one registry.

    Args:
        auth_file: logins as docker keeps them, or None.
        insecure: HOST[:PORT] of registries that are spoken to in plain http.
    """

    def __init__(self, sender: Sender, auth_file: Path | None, insecure: Collection[str]) -> None:
        self._sender = sender
        self._auth_file = auth_file
        self._insecure = frozenset(host.lower() for host in insecure)
        self._header = ""

    async def push(self, reference: Reference, image: Image, tell: Tell, *, replace: bool) -> int:
        """Push the blobs, and the manifest under the reference's tag.

        Returns how many bytes of blobs had to be sent, 0 when all of it was there. Raises Trouble.
        """
        there = await trying(lambda: self._tagged(reference))
        if there == f"sha256:{image.sha256}":
            return 0
        if there and not replace:
            raise Trouble(
                f"{_where(reference)}: the tag names {there[:19]}… already",
                "publish under a new version, or say --replace",
            )
        total, sent = sum(blob.size for blob in image.blobs), 0
        for blob in image.blobs:
            before = sent
            body = Upload(blob.path, blob.size, lambda done, _, before=before: tell(before + done, total))  # type: ignore[misc]
            sent += await trying(lambda blob=blob, body=body: self._blob(reference, blob.sha256, body))  # type: ignore[misc]
        name = hashlib.sha256(image.config).hexdigest()
        await trying(lambda: self._blob(reference, name, image.config))
        await trying(lambda: self._manifest(reference, image.manifest))
        return sent

    async def _tagged(self, reference: Reference) -> str:
        path = f"manifests/{reference.tag}"
        async with self._ask("HEAD", reference, path, {"Accept": ACCEPTED}) as response:
            if response.status == 404:
                return ""
            if response.status != 200:
                raise self._refusal(response, reference)
            return response.headers.get("Docker-Content-Digest", "unknown")

    async def _blob(self, reference: Reference, sha256: str, body: Upload | bytes) -> int:
        """Send a blob that is not there; the bytes that took."""
        async with self._ask("HEAD", reference, f"blobs/sha256:{sha256}", {}) as response:
            if response.status == 200:
                return 0
        async with self._ask("POST", reference, "blobs/uploads/", {"Content-Length": "0"}) as response:
            if response.status != 202:
                raise self._refusal(response, reference)
            place = urljoin(str(response.url), response.headers.get("Location", ""))
        url = URL(place, encoded=True).update_query({"digest": f"sha256:{sha256}"})
        headers = {"Content-Type": _FILE}
        async with self._ask("PUT", reference, str(url), headers, body) as response:
            if response.status != 201:
                raise self._refusal(response, reference)
        return body.size if isinstance(body, Upload) else len(body)

    async def _manifest(self, reference: Reference, data: bytes) -> None:
        headers = {"Content-Type": IMAGE}
        async with self._ask("PUT", reference, f"manifests/{reference.tag}", headers, data) as response:
            if response.status not in (200, 201):
                raise self._refusal(response, reference)

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        reference: Reference,
        path: str,
        headers: Mapping[str, str],
        body: Upload | bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, again with a login when the registry asks for one (or for a new one)."""
        base = self._base(reference)
        url = path if "://" in path else f"{base}{reference.name}/{path}"
        own = URL(url).origin() == URL(base).origin()
        for last in (False, True):
            secret = {"Authorization": self._header} if self._header and own else {}
            async with self._sender.exchange(method, url, headers, secret=secret, body=body) as response:
                if response.status != 401 or last or not own:
                    yield response
                    return
                challenge = response.headers.get("WWW-Authenticate", "")
            self._header = await self._authenticate(reference, challenge)

    def _base(self, reference: Reference) -> str:
        scheme = "http" if reference.host.lower() in self._insecure else "https"
        host = _HUB if reference.host.lower() == "docker.io" else reference.host
        return f"{scheme}://{host}/v2/"

    async def _authenticate(self, reference: Reference, challenge: str) -> str:
        """The header Authorization that the challenge asks for (RFC 9110 section 11.6.1)."""
        try:
            login = await asyncio.to_thread(credentials.find, self._auth_file, reference.host, reference.name)
        except Failure as failure:
            raise Trouble.of(failure) from None
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic" and login.basic:
            return login.basic
        if kind == "bearer" and login.access:
            return f"Bearer {login.access}"
        if kind != "bearer":
            raise self._denied(reference)
        return await self._token(reference, dict(_PARAMETER.findall(challenge)), login)

    async def _token(self, reference: Reference, asked: Mapping[str, str], login: credentials.Login) -> str:
        realm = asked.get("realm", "")
        plain = realm.startswith("http://") and reference.host.lower() in self._insecure
        if not (realm.startswith("https://") or plain):
            raise Trouble(f"{_where(reference)}: the registry names no token service that may be asked")
        wanted = {"service": asked.get("service", ""), "scope": f"repository:{reference.name}:pull,push"}
        if login.refresh:
            form = {"grant_type": "refresh_token", "refresh_token": login.refresh, "client_id": "emptybox"}
            exchange = self._sender.exchange("POST", realm, {}, body=form | wanted)
        else:
            secret = {"Authorization": login.basic} if login.basic else {}
            exchange = self._sender.exchange("GET", str(URL(realm).update_query(wanted)), {}, secret=secret)
        async with exchange as response:
            if response.status != 200:
                raise self._refusal(response, reference)
            answer = await response.content.read(_ANSWER)
            while not response.content.at_eof() and len(answer) < _ANSWER:
                answer += await response.content.read(_ANSWER)
        try:
            said = json.loads(answer)
            token = said.get("token") or said["access_token"]
        except (ValueError, KeyError, AttributeError, RecursionError):
            token = ""
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise Trouble(f"{_where(reference)}: the token service answered no token", passing=True)
        return f"Bearer {token}"

    def _refusal(self, response: aiohttp.ClientResponse, reference: Reference) -> Trouble:
        return (
            self._denied(reference) if response.status in (401, 403) else refusal(response, _where(reference))
        )

    def _denied(self, reference: Reference) -> Trouble:
        return Trouble(
            f"{_where(reference)}: the registry does not let us push",
            f"docker login {reference.host}, or name a file of logins with --registry-auth-file",
        )


def _layer(blob: Blob) -> dict[str, Any]:
    if not blob.title:
        return _descriptor(_LAYER, blob.sha256, blob.size)
    return _descriptor(_FILE, blob.sha256, blob.size) | {"annotations": {_TITLE: blob.title}}


def _descriptor(kind: str, sha256: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{sha256}", "size": size}


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _where(reference: Reference) -> str:
    return f"oci://{reference.host}/{reference.name}:{reference.tag}"
