from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from agent.artifact.artifacts import Artifacts
from agent.artifact.limits import DEFAULTS, Limits
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets
from tests.artifact.conftest import assert_no_traces
from tests.kit.archives import Tar
from tests.kit.hostile import Asked, HostileServer, whole
from tests.kit.registry import IMAGE, Registry, layout

LAYER = Tar().file("bin/web", b"1.0", mode=0o755).end()


def wanted(host: str, name: str, digest: str) -> ArtifactSpec:
    checksum = Checksum(algorithm="sha256", hex=digest.removeprefix("sha256:"))
    return ArtifactSpec(url=f"oci://{host}/{name}", checksum=checksum)


def logins(path: Path, auths: object) -> Path:
    """A file as docker has it."""
    path.write_text(json.dumps({"auths": auths}))
    return path


def encoded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


async def bring(
    spec: ArtifactSpec, store: Store, limits: Limits = DEFAULTS, auth: Path | None = None
) -> Path:
    """The release's tree; every registry is spoken to in plain http."""
    host = urlsplit(spec.url).netloc
    async with Artifacts(store, insecure_registries=[host], registry_auth=auth, limits=limits) as artifacts:
        async with artifacts.deliver(spec, "web") as delivery:
            return await delivery.published()


async def fail(
    spec: ArtifactSpec, store: Store, limits: Limits = DEFAULTS, auth: Path | None = None
) -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(spec, store, limits, auth)
    assert_no_traces(store)
    return caught.value


async def test_a_registry_that_wants_a_login_gets_it_from_dockers_file(tmp_path: Path, store: Store) -> None:
    async with Registry(tmp_path, login=("deployer", "correct horse")) as registry:
        image = await layout(tmp_path, [LAYER])
        digest = await registry.copy(image, "team/app:1")
        spec = wanted(registry.host, "team/app:1", digest)
        file = tmp_path / "config.json"
        for auths in (
            None,
            {},
            {registry.host: encoded("deployer", "wrong-password")},
            {"other.example": encoded("deployer", "correct horse")},
            {f"{registry.host}/other": encoded("deployer", "correct horse")},
        ):
            failure = await fail(spec, store, auth=None if auths is None else logins(file, auths))
            assert isinstance(failure, OperatorNeeded)
            assert failure.reason == "ArtifactDenied"
            assert "wrong-password" not in str(failure)
        for auths in (
            {f"https://{registry.host}/v2/": encoded("deployer", "correct horse")},
            {f"{registry.host}/team": encoded("deployer", "correct horse"), registry.host: encoded("x", "y")},
            {registry.host: {"username": "deployer", "password": "correct horse"}},
        ):
            tree = await bring(spec, store, auth=logins(file, auths))
            assert (tree / "bin/web").read_bytes() == b"1.0"
            await store.collect([])
    assert "correct horse" not in secrets.text("the password is correct horse")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"auths": 1}', '{"auths": {"HOST": {"auth": "%%%"}}}', "[" * 9999]
)
async def test_a_file_of_logins_that_is_none_is_told_without_its_content(
    tmp_path: Path, store: Store, text: str
) -> None:
    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            whole(b"", "text/plain", status="401 No", headers={"WWW-Authenticate": 'Basic realm="x"'})
        )

    async with HostileServer(answer) as server:
        host = urlsplit(server.url).netloc
        file = tmp_path / "config.json"
        file.write_text(text.replace("HOST", host))
        failure = await fail(wanted(host, "app:1", "0" * 64), store, auth=file)
        assert isinstance(failure, OperatorNeeded)
        assert failure.reason == "RegistryAuthInvalid"
        assert "%%%" not in str(failure)
        file.unlink()
        assert (await fail(wanted(host, "app:1", "0" * 64), store, auth=file)).reason == "RegistryAuthInvalid"


class TokenService:
    """Docker's token authentication, signing with a key of its own; `asked` has what it was asked."""

    def __init__(self, directory: Path, member: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._member = member
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._der = certificate.public_bytes(serialization.Encoding.DER)
        self.bundle = directory / "bundle.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def token(self, name: str, actions: list[str]) -> str:
        """A JSON Web Token that lets do that with `name`."""
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 60, "iat": now,
            "jti": "1", "access": [{"type": "repository", "name": name, "actions": actions}],
        }  # fmt: skip
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _base64url(signature)).decode()

    async def answer(self, request: Asked, writer: asyncio.StreamWriter) -> None:
        """GET with Basic, or POST with a refresh token."""
        asked = parse_qs(urlsplit(request.path).query) or parse_qs(request.body.decode())
        expected = "Basic " + base64.b64encode(b"deployer:secret-password").decode()
        granted = request.headers.get("authorization") == expected or asked.get("refresh_token") == [
            "refresh-me"
        ]
        if not granted or asked["service"] != ["registry"]:
            writer.write(whole(b"{}", "application/json", status="401 No"))
            return
        _, name, actions = asked["scope"][0].split(":")
        answer = {self._member: self.token(name, actions.split(",")), "expires_in": 300}
        writer.write(whole(json.dumps(answer).encode(), "application/json"))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.mark.parametrize("member", ["token", "access_token"])
async def test_a_token_is_got_once_and_used_for_all(tmp_path: Path, store: Store, member: str) -> None:
    tokens = TokenService(tmp_path, member)
    plain = tmp_path / "plain"
    plain.mkdir()
    async with Registry(plain) as registry:  # filled without a login
        image = await layout(tmp_path, [LAYER, Tar().file("a", b"a").end(), Tar().file("b", b"b").end()])
        digest = await registry.copy(image, "team/app:1")
    async with HostileServer(tokens.answer) as service:
        auth = {
            "token": {
                "realm": f"{service.url}/token", "service": "registry", "issuer": "tests",
                "rootcertbundle": str(tokens.bundle),
            }
        }  # fmt: skip
        closed = tmp_path / "closed"
        closed.mkdir()
        locked = Registry(closed, auth=auth, data=registry.data)
        async with locked:
            spec = wanted(locked.host, "team/app:1", digest)
            denied = await fail(spec, store)
            assert isinstance(denied, OperatorNeeded)
            service.asked.clear()
            file = logins(tmp_path / "config.json", {locked.host: encoded("deployer", "secret-password")})
            tree = await bring(spec, store, auth=file)
            assert sorted(path.name for path in tree.iterdir()) == ["a", "b", "bin"]
            assert len(service.asked) == 1
            await store.collect([])
            file = logins(tmp_path / "config.json", {locked.host: {"identitytoken": "refresh-me"}})
            assert (await bring(spec, store, auth=file)).is_dir()
            assert service.asked[-1].method == "POST"


def pieces(*layers: bytes) -> tuple[str, dict[str, bytes]]:
    """An image in memory: its digest, and what its registry has by digest."""
    blobs = {"sha256:" + hashlib.sha256(data).hexdigest(): data for data in (*layers, b"{}")}
    listed = [{"digest": digest, "size": len(data)} for digest, data in blobs.items()]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": IMAGE, "config": listed[-1], "layers": listed[:-1]}
    ).encode()
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    return digest, {**blobs, digest: manifest}


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def serving(held: dict[str, bytes], but: Callable[[Asked], bytes | None] = lambda _: None) -> Answer:
    """A registry of what is `held`; `but` has other answers to some requests."""

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        other = but(request)
        found = held.get(request.path.rpartition("/")[2])
        if other is not None:
            writer.write(other)
        elif found is None:
            writer.write(whole(b"{}", "application/json", status="404 Not Found"))
        else:
            writer.write(whole(b"" if request.method == "HEAD" else found, "application/octet-stream"))

    return answer


async def test_a_blob_that_lies_elsewhere_is_fetched_there_without_the_login(
    tmp_path: Path, store: Store
) -> None:
    digest, held = pieces(LAYER)
    async with HostileServer(serving(held)) as storage:

        def elsewhere(request: Asked) -> bytes | None:
            if "authorization" not in request.headers:
                challenge = {"WWW-Authenticate": 'Basic realm="x"'}
                return whole(b"", "text/plain", status="401 No", headers=challenge)
            if "/blobs/" in request.path:
                target = f"{storage.url}/signed/{request.path.rpartition('/')[2]}"
                return whole(b"", "text/plain", status="307 There", headers={"Location": target})
            return None

        async with HostileServer(serving(held, elsewhere)) as server:
            host = urlsplit(server.url).netloc
            auth = logins(tmp_path / "config.json", {host: encoded("deployer", "secret-password")})
            tree = await bring(wanted(host, "app", digest), store, auth=auth)
            assert (tree / "bin/web").read_bytes() == b"1.0"
        assert storage.asked
        assert all("authorization" not in request.headers for request in storage.asked)


async def test_a_registry_that_asks_for_patience_is_told_with_its_time(store: Store) -> None:
    digest, held = pieces(LAYER)

    def limited(request: Asked) -> bytes | None:
        if "/blobs/" not in request.path:
            return None
        return whole(b"", "text/plain", status="429 Too Many", headers={"Retry-After": "37"})

    async with HostileServer(serving(held, limited)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", digest), store)
    assert isinstance(failure, Transient)
    assert failure.retry_after == 37.0


async def test_layers_that_came_before_a_failure_are_not_asked_for_again(store: Store) -> None:
    second = Tar().file("b", b"b").end()
    digest, held = pieces(LAYER, second)
    broken = "sha256:" + hashlib.sha256(second).hexdigest()
    came = asyncio.Event()

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        if broken in request.path and not came.is_set():
            async with asyncio.timeout(30):
                while not list((store.root / "layers").iterdir()):
                    await asyncio.sleep(0.005)
            came.set()
            writer.write(whole(b"", "text/plain", status="503 Not Now"))
            return
        await serving(held)(request, writer)

    async with HostileServer(answer) as server:
        spec = wanted(urlsplit(server.url).netloc, "app", digest)
        assert isinstance(await fail(spec, store), Transient)
        asked = len(server.asked)
        tree = await bring(spec, store)
        assert sorted(path.name for path in tree.iterdir()) == ["b", "bin"]
        assert [r.path for r in server.asked[asked:] if "/blobs/" in r.path] == [f"/v2/app/blobs/{broken}"]


def lying(**changes: Any) -> Callable[[dict[str, bytes], str], str]:
    """Replace the manifest by one with other members; returns its digest."""

    def change(held: dict[str, bytes], digest: str) -> str:
        document = json.loads(held[digest]) | changes
        data = json.dumps(document).encode()
        new = "sha256:" + hashlib.sha256(data).hexdigest()
        held[new] = data
        return new

    return change


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layers": None}, "ManifestBroken"),
        ({"layers": []}, "ManifestBroken"),
        ({"layers": [{"digest": "md5:00", "size": 1}]}, "ManifestBroken"),
        ({"layers": [{"digest": "sha256:../../x", "size": 1}]}, "ManifestBroken"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}, "ManifestBroken"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 300}, "ManifestBroken"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1 << 60}]}, "ArtifactTooLarge"),
        ({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}]}, "ArtifactNotFound"),
        ({"manifests": []}, "ManifestBroken"),
        ({"schemaVersion": 1}, "ManifestUnsupported"),
        ({"layers": "x"}, "ManifestBroken"),
    ],
)
async def test_manifests_that_lie_are_refused(store: Store, changes: dict[str, Any], reason: str) -> None:
    digest, held = pieces(LAYER)
    digest = lying(**changes)(held, digest)
    async with HostileServer(serving(held)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", digest), store)
    assert isinstance(failure, Permanent)
    assert failure.reason == reason


async def test_a_layer_of_another_length_and_another_manifest_are_found(store: Store) -> None:
    digest, held = pieces(LAYER)
    layer = next(iter(held))
    for data, reason in ((LAYER + b"x", "ArtifactTooLarge"), (LAYER[:-1], "ArtifactTruncated")):
        async with HostileServer(serving({**held, layer: data})) as server:
            failure = await fail(wanted(urlsplit(server.url).netloc, "app", digest), store)
            assert failure.reason == reason
    async with HostileServer(serving({**held, digest: b"{}"})) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", digest), store)
        assert failure.reason == "ChecksumMismatch"


async def test_indexes_in_one_another_end(store: Store) -> None:
    digest, held = pieces(LAYER)
    for _ in range(5):
        index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest, "size": 1}]}).encode()
        digest = "sha256:" + hashlib.sha256(index).hexdigest()
        held[digest] = index
    async with HostileServer(serving(held)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", digest), store)
    assert failure.reason == "ManifestBroken"


async def test_a_manifest_or_a_token_without_end_is_cut_off(tmp_path: Path, store: Store) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(6_000_000)
    async with HostileServer(serving({}, lambda _: endless)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", "0" * 64), store)
    assert failure.reason == "ArtifactTooLarge"

    def token(request: Asked) -> bytes | None:
        if request.path.startswith("/token"):
            return endless
        realm = {"WWW-Authenticate": f'Bearer realm="http://{request.headers["host"]}/token",service="x"'}
        return whole(b"", "text/plain", status="401 No", headers=realm)

    async with HostileServer(serving({}, token)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", "0" * 64), store)
    assert failure.reason == "ArtifactTooLarge"


@pytest.mark.parametrize(
    "realm", ["", "not a url", "file:///etc/passwd", "http://u:p@127.0.0.1:1/", "ftp://x/"]
)
async def test_a_token_service_that_may_not_be_asked_is_not(store: Store, realm: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    answer = whole(b"", "text/plain", status="401 No", headers=challenge)
    async with HostileServer(serving({}, lambda _: answer)) as server:
        failure = await fail(wanted(urlsplit(server.url).netloc, "app", "0" * 64), store)
    assert failure.reason == "ManifestBroken"


async def test_layers_that_grow_beyond_the_limit_together_are_refused(store: Store) -> None:
    layers = [Tar().file(f"f{number}", bytes(40_000)).end() for number in range(4)]
    digest, held = pieces(*layers)
    async with HostileServer(serving(held)) as server:
        spec = wanted(urlsplit(server.url).netloc, "app", digest)
        failure = await fail(spec, store, Limits(unpacked=100_000))
        assert failure.reason == "ArchiveTooLarge"
        assert (await fail(spec, store, Limits(entries=3))).reason == "ArchiveTooLarge"


async def test_a_layer_that_breaks_off_is_gone_on_with(store: Store) -> None:
    large = Tar().file("noise", os.urandom(2_000_000)).end()
    digest, held = pieces(large)
    layer = "sha256:" + hashlib.sha256(large).hexdigest()
    ranges: list[str] = []

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        if layer not in request.path:
            await serving(held)(request, writer)
            return
        ranges.append(request.headers.get("range", ""))
        start = int(ranges[-1].removeprefix("bytes=").rstrip("-") or 0)
        headers = {"ETag": f'"{layer}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(large) - 1}/{len(large)}"
        status = "206 Partial" if start else "200 OK"
        data = whole(large[start:], "application/octet-stream", status=status, headers=headers)
        writer.write(data if start else data[:1_000_000])
        await writer.drain()
        if not start:
            writer.close()

    async with HostileServer(answer) as server:
        tree = await bring(wanted(urlsplit(server.url).netloc, "app", digest), store)
    assert (tree / "noise").stat().st_size == 2_000_000
    assert len(ranges) == 2
    assert ranges[1]
