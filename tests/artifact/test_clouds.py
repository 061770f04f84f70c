"""gs:// and az:// against stand-ins: no server of Google's or Azure's runs on a loopback.

They judge what comes by the published rules (RFC 7515 and 7523 for Google's self-signed tokens; "Authorize
with Shared Key" for Azure), computed here from the same keys, and answer as little as the client needs. What
all kinds of storage have in common is tried against a real server in test_s3.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.kit.mask import secrets
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.kit.hostile import Answer, Asked, HostileServer, whole

DATA = release(b"1.0")
HEADERS = {"ETag": '"v1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
ACCOUNT, KEY = "emptyboxtests", base64.b64encode(b"a key of tests, 32 bytes long ok").decode()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def google_key(path: Path, key: rsa.RSAPrivateKey, base: str) -> Path:
    """A service account's key, as Google gives it out."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "tests@project.iam.example",
        "private_key_id": "the-id-of-the-key",
        "private_key": pem.decode(),
        "gcs_base_url": base,
    }
    path.write_text(json.dumps(account))
    return path


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Google:
    """Answers who shows a token signed by `key`."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key = key

    async def __call__(self, request: Asked, writer: asyncio.StreamWriter) -> None:
        head, claims, signature = request.headers["authorization"].removeprefix("Bearer ").split(".")
        try:
            self.key.public_key().verify(
                unpadded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            writer.write(whole(b"<Error/>", "application/xml", status="403 Forbidden"))
            return
        assert json.loads(unpadded(claims))["iss"] == "tests@project.iam.example"
        answer(request, writer, "/releases/web 1.0/web.tar.gz")


def answer(request: Asked, writer: asyncio.StreamWriter, path: str) -> None:
    if unquote(request.path.partition("?")[0]) == path:
        writer.write(whole(DATA, "application/gzip", headers=HEADERS))
    else:
        writer.write(whole(b"<Error/>", "application/xml", status="404 Not Found"))


class Busy:
    """Answers like another, after `times` answers that there is too much to do."""

    def __init__(self, other: Answer, status: str, times: int) -> None:
        self.left = times
        self._other = other
        self._status = status

    async def __call__(self, request: Asked, writer: asyncio.StreamWriter) -> None:
        if not self.left:
            await self._other(request, writer)
            return
        self.left -= 1
        writer.write(whole(b"<Error/>", "application/xml", status=self._status, headers={"Retry-After": "1"}))


async def azure(request: Asked, writer: asyncio.StreamWriter) -> None:
    """Answers who signs with the account's key, or shows a shared access signature."""
    headers = request.headers
    ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
    names = ("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")
    rest = "\n".join(headers.get(name, "") for name in names)
    text = f"GET\n\n\n\n\n\n{headers.get('date', '')}\n{rest}\n{ours}/{ACCOUNT}{request.path}"
    proof = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    shared = "sig=a%2Bsignature" in request.path and "authorization" not in headers
    if shared or headers.get("authorization") == f"SharedKey {ACCOUNT}:{proof}":
        answer(request, writer, f"/{ACCOUNT}/releases/web/web.tar.gz")
    else:
        writer.write(whole(b"<Error/>", "application/xml", status="403 Forbidden"))


@pytest.fixture
async def blobs() -> AsyncIterator[HostileServer]:
    async with HostileServer(azure) as running:
        yield running


async def bring(store: Store, url: str, *, gcs: Path | None = None, azure: Path | None = None) -> bytes:
    async with Artifacts(store, gcs=gcs, azure=azure) as artifacts:
        async with artifacts.deliver(spec(url, DATA), "web") as delivery:
            return ((await delivery.published()) / "bin/web").read_bytes()


async def fail(store: Store, url: str, *, gcs: Path | None = None, azure: Path | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(store, url, gcs=gcs, azure=azure)
    assert_no_traces(store)
    return caught.value


async def test_a_stand_in_for_google_is_shown_a_token_signed_by_the_service_accounts_key(
    store: Store, tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    google = Google(rsa.generate_private_key(65537, 2048))
    async with HostileServer(google) as server:
        file = google_key(tmp_path / "key.json", rsa_key, server.url)
        failure = await fail(store, "gs://releases/web 1.0/web.tar.gz", gcs=file)
        assert isinstance(failure, OperatorNeeded)
        assert (failure.reason, "--gcs-credentials-file" in str(failure)) == ("ArtifactDenied", True)
        google.key = rsa_key
        assert (await fail(store, "gs://releases/other", gcs=file)).reason == "ArtifactNotFound"
        assert await bring(store, "gs://releases/web 1.0/web.tar.gz", gcs=file) == b"1.0"
    assert "the-id-of-the-key" not in secrets.text("the-id-of-the-key")
    assert (await fail(store, "gs://releases", gcs=file)).reason == "UrlInvalid"


@pytest.mark.parametrize(
    "secret", [f"AccountKey={KEY}", "SharedAccessSignature=sv=2022-11-02&sig=a%2Bsignature"]
)
async def test_a_stand_in_for_azure_is_shown_what_the_connection_string_has(
    secret: str, store: Store, tmp_path: Path, blobs: HostileServer
) -> None:
    file = tmp_path / "connection"
    file.write_text(f"AccountName={ACCOUNT};{secret};BlobEndpoint={blobs.url}/{ACCOUNT};\n")
    assert await bring(store, "az://releases/web/web.tar.gz", azure=file) == b"1.0"
    assert (await fail(store, "az://releases/other", azure=file)).reason == "ArtifactNotFound"
    assert secret.partition("=")[2] not in secrets.text(secret)


async def test_another_key_than_azures_is_the_operators(
    store: Store, tmp_path: Path, blobs: HostileServer
) -> None:
    file = tmp_path / "connection"
    other = base64.b64encode(b"x" * 32).decode()
    file.write_text(f"AccountName={ACCOUNT};AccountKey={other};BlobEndpoint={blobs.url}/{ACCOUNT}")
    failure = await fail(store, "az://releases/web/web.tar.gz", azure=file)
    assert isinstance(failure, OperatorNeeded)
    assert (failure.reason, "--azure-connection-file" in str(failure)) == ("ArtifactDenied", True)


@pytest.mark.parametrize("scheme", ["gs", "az"])
async def test_a_stand_in_that_is_too_busy_is_asked_once_more_and_then_again_later(
    scheme: str, store: Store, tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    other, status = (
        (Google(rsa_key), "429 Too Many Requests") if scheme == "gs" else (azure, "503 Server Busy")
    )
    file, url = tmp_path / "credentials", f"{scheme}://releases/web/web.tar.gz"
    if isinstance(other, Google):
        url = "gs://releases/web 1.0/web.tar.gz"
    busy = Busy(other, status, 3)
    async with HostileServer(busy) as server:
        google_key(file, rsa_key, server.url)
        if scheme == "az":
            file.write_text(f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={server.url}/{ACCOUNT}")
        failure = await fail(store, url, gcs=file, azure=file)
        assert isinstance(failure, Transient)
        assert (failure.reason, status[:3] in str(failure)) == ("ArtifactUnavailable", True)
        assert busy.left == 1
        assert await bring(store, url, gcs=file, azure=file) == b"1.0"


@pytest.mark.parametrize(
    "text", [None, "", "hidden-one", '["hidden-one"]', "{}", "AccountName=hidden-one", "\xff"]
)
@pytest.mark.parametrize("scheme", ["gs", "az"])
async def test_a_file_of_credentials_that_is_none_is_told_without_its_content(
    scheme: str, text: str | None, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    failure = await fail(store, f"{scheme}://releases/web", gcs=file, azure=file)
    assert isinstance(failure, OperatorNeeded)
    assert failure.reason == "StorageCredentialsInvalid"
    assert "hidden-one" not in str(failure)


async def test_a_key_that_is_not_base64_is_told_before_anyone_is_asked(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "connection"
    file.write_text("AccountName=a;AccountKey=no base64;EndpointSuffix=core.windows.net")
    assert "AccountKey is not base64" in str(await fail(store, "az://releases/web", azure=file))
