"""az:// against Azurite, which checks signatures as Azure does; gs:// against fake-gcs-server, which checks
nothing of who asks (that Google is shown a proper token is tried in test_clouds).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.artifact.artifacts import Artifacts
from agent.artifact.azure import Azure
from agent.artifact.gcs import Gcs
from agent.artifact.http_access import Trust
from agent.artifact.limits import DEFAULTS
from agent.artifact.objects import ObjectSource
from agent.artifact.source import Have
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.kit.artifact_server import ArtifactServer
from tests.kit.cloud_servers import Azurite, FakeGcs

pytestmark = pytest.mark.xdist_group("clouds")  # one server of each kind serves all of these
SLOWLY = """location / {{
    proxy_pass http://127.0.0.1:{port}; proxy_max_temp_file_size 0; limit_rate_after 1300k; limit_rate 400k;
}}"""


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with Azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    with FakeGcs(tmp_path_factory.mktemp("gcs")) as running:
        yield running


@pytest.fixture(scope="module")
def pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()


class Clouds:
    """Files of credentials for either kind; `at` is where the server is."""

    def __init__(self, base: Path, pem: str) -> None:
        self.azure, self.gcs = base / "connection", base / "key.json"
        self._pem = pem

    def know(self, server: Azurite | FakeGcs, *, port: int = 0) -> None:
        """Write the credentials for this server, seen on another port if one is given."""
        seen = f"127.0.0.1:{port or server.port}"
        if isinstance(server, Azurite):
            self.azure.write_text(server.connection.replace(f"127.0.0.1:{server.port}", seen))
        else:
            names = {"client_email": "tests@project.iam.example", "private_key_id": "the-id-of-the-key"}
            account = {"type": "service_account", **names, "private_key": self._pem}
            self.gcs.write_text(json.dumps({**account, "gcs_base_url": f"http://{seen}"}))

    def artifacts(self, store: Store) -> Artifacts:
        return Artifacts(store, azure=self.azure, gcs=self.gcs)

    def source(self, server: Azurite | FakeGcs) -> ObjectSource:
        cloud = Azure(self.azure) if isinstance(server, Azurite) else Gcs(self.gcs)
        return ObjectSource(cloud, DEFAULTS, Trust(None))


@pytest.fixture
def clouds(tmp_path: Path, pem: str) -> Clouds:
    return Clouds(tmp_path, pem)


@pytest.fixture(params=["azure", "google"])
def server(request: pytest.FixtureRequest, clouds: Clouds) -> Azurite | FakeGcs:
    """Either, with credentials that are right."""
    found: Azurite | FakeGcs = request.getfixturevalue(request.param)
    clouds.know(found)
    return found


async def bring(clouds: Clouds, store: Store, url: str, data: bytes) -> Path:
    async with clouds.artifacts(store) as artifacts:
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            return await delivery.published()


async def fail(clouds: Clouds, store: Store, url: str, data: bytes = b"x") -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(clouds, store, url, data)
    assert_no_traces(store)
    return caught.value


async def test_an_object_is_fetched_whatever_is_in_its_key_and_held_against_its_digest(
    server: Azurite | FakeGcs, clouds: Clouds, store: Store
) -> None:
    data = release(b"1.0", 3_000_000)
    url = server.put("web 1.0/a+b ü.tar.gz", data)
    assert (await fail(clouds, store, url, b"other")).reason == "ChecksumMismatch"
    assert ((await bring(clouds, store, url, data)) / "bin/web").read_bytes() == b"1.0"


async def test_what_is_not_there_is_told_and_so_is_a_server_that_is_gone(
    server: Azurite | FakeGcs, clouds: Clouds, store: Store
) -> None:
    scheme = "az" if isinstance(server, Azurite) else "gs"
    for url in (f"{scheme}://releases/nothing", f"{scheme}://nowhere/web"):
        failure = await fail(clouds, store, url)
        assert isinstance(failure, Permanent)
        assert failure.reason == "ArtifactNotFound"
    clouds.know(server, port=1)
    failure = await fail(clouds, store, f"{scheme}://releases/web")
    assert isinstance(failure, Transient)
    assert failure.reason == "ArtifactUnavailable"


async def test_a_download_is_gone_on_with_after_a_restart(
    server: Azurite | FakeGcs, clouds: Clouds, store: Store, tmp_path: Path
) -> None:
    data = os.urandom(17 << 20)
    url, begun = server.put("large", data), asyncio.Event()

    def tell(done: int, total: int) -> None:
        if done > 1_200_000:
            begun.set()

    async with ArtifactServer(tmp_path, locations=SLOWLY.format(port=server.port)) as front:
        clouds.know(server, port=front.port)
        async with clouds.artifacts(store) as artifacts:
            async with artifacts.deliver(spec(url, data, archive="none"), "web", tell):
                async with asyncio.timeout(30):
                    await begun.wait()
                    while not any(p.stat().st_size for p in (store.root / "partial").glob("*/bytes")):
                        await asyncio.sleep(0.005)
    clouds.know(server)
    async with clouds.artifacts(store) as artifacts:
        async with artifacts.deliver(spec(url, data, archive="none"), "web") as delivery:
            assert ((await delivery.published()) / "bin/web").read_bytes() == data
    await asyncio.to_thread(server.wait_for, 206, "large")


async def test_the_rest_is_given_of_the_very_same_object_only(
    server: Azurite | FakeGcs, clouds: Clouds
) -> None:
    """Azure answers 412 to If-Match; fake-gcs-server does not know it, and the entity tag tells."""
    first, second = os.urandom(1_000_000), os.urandom(1_000_000)
    url, source = server.put("changing", first), clouds.source(server)

    async def read(have: Have | None) -> tuple[bytes, int, str]:
        async with source.open(url, have=have) as body:
            assert body is not None
            assert body.resumable
            pieces = []
            while piece := await body.read():
                pieces.append(piece)
            return b"".join(pieces), body.start, body.validator

    whole, start, tag = await read(None)
    assert (whole, start) == (first, 0)
    have = Have(400_000, 1_000_000, tag)
    assert await read(have) == (first[400_000:], 400_000, tag)
    server.put("changing", second)
    whole, start, other = await read(have)
    assert (whole, start) == (second, 0)
    assert other != tag
    if isinstance(server, Azurite):  # the other does not know If-None-Match either
        async with source.open(url, unless=other) as body:
            assert body is None


async def test_azure_refuses_another_key_and_correcting_the_file_is_enough(
    azure: Azurite, clouds: Clouds, store: Store
) -> None:
    data = release()
    url = azure.put("web.tar.gz", data)
    other = base64.b64encode(b"another key, of 32 bytes as well").decode()
    clouds.azure.write_text(azure.connection.replace(azure.key, other))
    async with clouds.artifacts(store) as artifacts:
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            with pytest.raises(OperatorNeeded) as caught:
                await delivery.published()
        assert (caught.value.reason, "--azure-connection-file" in str(caught.value)) == (
            "ArtifactDenied",
            True,
        )
        clouds.know(azure)
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            assert (await delivery.published()).is_dir()


async def test_azure_takes_a_shared_access_signature_until_it_ends_and_as_far_as_it_goes(
    azure: Azurite, clouds: Clouds, store: Store
) -> None:
    data = release()
    url = azure.put("shared.tar.gz", data)

    def show(signature: str) -> None:
        names = f"AccountName={azure.account};BlobEndpoint={azure.url}"
        clouds.azure.write_text(f"{names};SharedAccessSignature={signature}")

    for signature in (azure.signature(time.time() - 600), azure.signature(time.time() + 600, "w")):
        show(signature)
        failure = await fail(clouds, store, url, data)
        assert isinstance(failure, OperatorNeeded)
        assert failure.reason == "ArtifactDenied"
    show(good := azure.signature(time.time() + 600))
    assert (await bring(clouds, store, url, data)).is_dir()
    assert "sig=" not in secrets.text(f"it is {good}")
