from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest

from agent.artifact.artifacts import Artifacts
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Permanent, Transient
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import big, release, spec
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer


def listed(url: str, listing: str, algorithm: str = "sha256") -> ArtifactSpec:
    """An artifact whose digest stands in the checksum file of URL `listing`."""
    return ArtifactSpec(url=url, checksum=Checksum(algorithm=algorithm, url=listing))


async def test_a_digest_that_is_given_costs_nothing(artifacts: Artifacts) -> None:
    wanted = spec("http://127.0.0.1:1/web", b"x")
    assert await artifacts.pin(wanted) is wanted


async def test_a_checksum_file_is_looked_into(server: ArtifactServer, artifacts: Artifacts) -> None:
    data = release()
    digest = hashlib.sha256(data).hexdigest()
    url = server.put("1.0/web.tar.gz", data)
    listing = server.put("1.0/SHA256SUMS", f"{'0' * 64}  other\n{digest}  web.tar.gz\n".encode())
    pinned = await artifacts.pin(listed(url, listing))
    assert pinned == spec(url, data)
    async with artifacts.deliver(pinned, "web") as delivery:
        await delivery.published()
    long = server.put("1.0/SHA512SUMS", hashlib.sha512(data).hexdigest().encode())
    pinned = await artifacts.pin(listed(url, long, "sha512"))
    assert pinned.checksum == Checksum(algorithm="sha512", hex=hashlib.sha512(data).hexdigest())


async def test_a_checksum_file_that_is_not_there_or_says_nothing_is_a_permanent_failure(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    with pytest.raises(Permanent) as missing:
        await artifacts.pin(listed(f"{server.url}/web", f"{server.url}/SHA256SUMS"))
    assert missing.value.reason == "ArtifactNotFound"
    assert "SHA256SUMS" in str(missing.value)
    listing = server.put("SHA256SUMS", b"nothing\n")
    with pytest.raises(Permanent) as silent:
        await artifacts.pin(listed(f"{server.url}/web", listing))
    assert silent.value.reason == "ChecksumMissing"


async def test_a_checksum_file_is_bounded(server: ArtifactServer, artifacts: Artifacts) -> None:
    listing = server.put("SHA256SUMS", b"x" * ((1 << 20) + 1))
    with pytest.raises(Permanent) as caught:
        await artifacts.pin(listed(f"{server.url}/web", listing))
    assert caught.value.reason == "ArtifactTooLarge"

    async def endless(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"# \n" * 10_000)
            await writer.drain()

    async with HostileServer(endless) as hostile:
        with pytest.raises(Permanent):
            await artifacts.pin(listed(f"{server.url}/web", hostile.url))
        async with asyncio.timeout(10):
            await hostile.left.wait()


@pytest.mark.parametrize("size", [10_000, 3_000_000])
async def test_without_a_checksum_the_artifact_is_fetched_once_to_learn_it(
    size: int, server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = big(size)
    url = server.put("web.tar", data)
    pinned = await artifacts.pin(spec(url))
    assert pinned == spec(url, data)
    async with artifacts.deliver(pinned, "web") as delivery:
        assert (await delivery.published() / "noise").exists()
    assert len(await server.requests(1)) == 1
    assert await artifacts.pin(spec(url)) == pinned
    assert [line.status for line in await server.requests(2)] == [200, 304]
    await artifacts.store.collect([delivery.release])
    assert list((artifacts.store.root / "blobs").iterdir()) == []


async def test_without_a_checksum_a_changed_artifact_is_seen(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    first, second = release(b"1.0"), release(b"2.0 ")
    url = server.put("web.tar.gz", first)
    assert (await artifacts.pin(spec(url))) == spec(url, first)
    server.put("web.tar.gz", second)
    assert (await artifacts.pin(spec(url))) == spec(url, second)


async def test_a_learned_artifact_whose_bytes_are_gone_is_fetched_again(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release()
    pinned = await artifacts.pin(spec(server.put("web.tar.gz", data)))
    await artifacts.store.collect([])
    async with artifacts.deliver(pinned, "web") as delivery:
        assert await delivery.fetched() == len(data)
        await delivery.published()


async def test_learning_that_breaks_off_leaves_nothing(artifacts: Artifacts) -> None:
    async def short(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(2_000_000))
        await writer.drain()
        writer.close()

    async with HostileServer(short) as server:
        with pytest.raises(Transient):
            await artifacts.pin(spec(server.url))
    assert_no_traces(artifacts.store)
    assert list((artifacts.store.root / "blobs").iterdir()) == []


async def test_an_unpinned_artifact_cannot_be_delivered(artifacts: Artifacts) -> None:
    with pytest.raises(ValueError, match="not pinned"):
        artifacts.deliver(spec("http://127.0.0.1:1/web"), "web")
    assert msgspec.structs.asdict(spec("x"))["checksum"].hex == ""
