from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.limits import Limits
from agent.artifact.store import Store
from agent.domain.artifact_spec import Checksum
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import big, release, soon, spec
from tests.kit.archives import HOSTILE, Tar
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer


async def fail(artifacts: Artifacts, url: str, data: bytes, **options: str) -> Failure:
    """The failure of a delivery, the same from every moment after it."""
    async with artifacts.deliver(spec(url, data, **options), "web") as delivery:  # type: ignore[arg-type]
        with pytest.raises(Failure) as caught:
            await delivery.published()
    assert not artifacts.store.has(delivery.release)
    assert_no_traces(artifacts.store)
    return caught.value


async def test_an_archive_is_fetched_verified_unpacked_and_published(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release(b"1.0")
    wanted = spec(server.put("web-1.0.tar.gz", data), data)
    seen: list[tuple[int, int]] = []
    async with artifacts.deliver(wanted, "web", lambda done, total: seen.append((done, total))) as delivery:
        assert await delivery.fetched() == len(data)
        assert await delivery.verified() == "sha256:" + hashlib.sha256(data).hexdigest()
        path = await delivery.published()
    assert path == artifacts.store.path(delivery.release)
    assert (path / "bin/web").read_bytes() == b"1.0"
    assert os.access(path / "bin/web", os.X_OK)
    assert path.stat().st_mode & 0o7777 == 0o755
    assert seen[-1] == (len(data), len(data))
    assert_no_traces(artifacts.store)


async def test_a_release_in_the_store_is_not_fetched_and_nothing_is_waited_for(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release()
    wanted = spec(server.put("web.tar.gz", data), data)
    async with artifacts.deliver(wanted, "web") as first:
        path = await first.published()
    gone = spec("http://127.0.0.1:1/web.tar.gz", data)
    async with artifacts.deliver(gone, "web") as again:
        assert await again.fetched() == 0
        assert await again.verified() == "sha256:" + hashlib.sha256(data).hexdigest()
        assert await again.published() == path
    assert len(await server.requests(1)) == 1


async def test_two_deliveries_of_one_release_are_one_download(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = big(2_000_000)
    wanted = spec(server.put("web.tar", data), data)
    heard: list[int] = []

    async def deliver() -> Path:
        async with artifacts.deliver(wanted, "web", lambda _, total: heard.append(total)) as delivery:
            return await delivery.published()

    paths = await asyncio.gather(*(deliver() for _ in range(5)))
    assert len(set(paths)) == 1
    assert heard.count(len(data)) >= 5
    assert len(await server.requests(1)) == 1


async def test_a_wrong_digest_names_both_and_leaves_nothing(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release()
    url = server.put("web.tar.gz", data)
    other = release(b"other")
    async with artifacts.deliver(spec(url, other), "web") as delivery:
        assert await delivery.fetched() == len(data)
        with pytest.raises(Permanent) as caught:
            await delivery.verified()
        with pytest.raises(Permanent):
            await delivery.published()
    assert caught.value.reason == "ChecksumMismatch"
    for known in (data, other):
        assert hashlib.sha256(known).hexdigest() in str(caught.value)
    assert url in str(caught.value)
    assert not artifacts.store.has(delivery.release)
    assert_no_traces(artifacts.store)


async def test_a_wrong_digest_is_told_rather_than_what_is_wrong_with_the_archive(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    page = b"<html>Log in" * 1000
    failure = await fail(artifacts, server.put("web.tar.gz", page), b"what was expected")
    assert failure.reason == "ChecksumMismatch"


@pytest.mark.parametrize(
    "name", ["a path that leaves", "links that leave together", "gzip cut short", "a FIFO"]
)
async def test_a_hostile_archive_is_a_permanent_failure_that_names_artifact_and_entry(
    name: str, server: ArtifactServer, artifacts: Artifacts
) -> None:
    bad = HOSTILE[name]
    url = server.put("artifact", bad.data)
    before = sorted(path for path in artifacts.store.root.parent.rglob("*") if "nginx" not in str(path))
    async with artifacts.deliver(spec(url, bad.data), "web") as delivery:
        assert await delivery.verified()
        with pytest.raises(Permanent) as caught:
            await delivery.published()
    assert caught.value.reason == bad.reason
    assert bad.names in str(caught.value)
    assert url in str(caught.value)
    after = sorted(path for path in artifacts.store.root.parent.rglob("*") if "nginx" not in str(path))
    assert after == before


async def test_what_is_longer_than_allowed_is_refused_before_it_is_read(
    server: ArtifactServer, store: Store
) -> None:
    data = big(300_000)
    url = server.put("web.tar", data)
    async with Artifacts(store, limits=Limits(body=200_000)) as artifacts:
        failure = await fail(artifacts, url, data)
    assert failure.reason == "ArtifactTooLarge"
    assert "200000" in str(failure)


async def test_what_does_not_tell_its_length_is_cut_off_at_the_limit(store: Store) -> None:
    async def never_ending(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2710\r\n" + bytes(10_000) + b"\r\n")
            await writer.drain()

    async with (
        HostileServer(never_ending) as server,
        Artifacts(store, limits=Limits(body=2 << 20)) as artifacts,
    ):
        failure = await fail(artifacts, server.url + "/web", b"")
        assert failure.reason == "ArtifactTooLarge"
        async with asyncio.timeout(10):
            await server.left.wait()


async def test_a_body_that_breaks_off_is_a_transient_failure(artifacts: Artifacts) -> None:
    data = big(3_000_000)

    async def short(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:-1])
        await writer.drain()
        writer.close()

    async with HostileServer(short) as server:
        failure = await fail(artifacts, server.url + "/web.tar", data)
    assert (failure.reason, isinstance(failure, Transient)) == ("ArtifactTruncated", True)


async def test_a_body_that_drips_is_cut_off_at_the_deadline(store: Store) -> None:
    async def drip(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_500_000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with HostileServer(drip) as server, Artifacts(store, limits=Limits(total=0.5)) as artifacts:
        failure = await fail(artifacts, server.url + "/web.tar", b"")
        assert (failure.reason, isinstance(failure, Transient)) == ("ArtifactTimeout", True)
        await soon(server.left)


async def test_space_is_looked_at_before_a_fetch_begins(store: Store) -> None:
    async def huge(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000000\r\n\r\n")
        await writer.drain()

    async with HostileServer(huge) as server, Artifacts(store, limits=Limits(body=1 << 62)) as artifacts:
        failure = await fail(artifacts, server.url + "/web", b"")
    assert isinstance(failure, OperatorNeeded)
    assert failure.reason == "DiskFull"
    assert "1000000000000000000 bytes are needed" in str(failure)


async def test_a_large_artifact_is_told_of_while_it_comes_but_not_too_often(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = big(1_600_000)
    server.put("web.tar", data)
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    started = loop.time()
    wanted = spec(f"{server.url}/slow/web.tar", data)
    async with artifacts.deliver(wanted, "web", lambda done, _: seen.append(done)) as delivery:
        await delivery.published()
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    assert len(seen) <= (loop.time() - started) * 20 + 2


async def test_sha512_will_do_as_well(server: ArtifactServer, artifacts: Artifacts) -> None:
    data = release()
    url = server.put("web.tar.gz", data)
    digest = hashlib.sha512(data).hexdigest()
    wanted = msgspec.structs.replace(spec(url), checksum=Checksum(algorithm="sha512", hex=digest.upper()))
    async with artifacts.deliver(wanted, "web") as delivery:
        assert await delivery.verified() == f"sha512:{digest}"
        assert (await delivery.published() / "bin/web").exists()


async def test_a_plain_file_is_the_apps_program_or_what_the_state_names_it(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = b"#!/bin/sh\nexec sleep 1\n"
    url = server.put("web-linux-amd64", data)
    async with artifacts.deliver(spec(url, data), "web") as delivery:
        assert (await delivery.published() / "bin/web").stat().st_mode & 0o777 == 0o755
    async with artifacts.deliver(spec(url, data, name="libexec/server"), "web") as delivery:
        assert (await delivery.published() / "libexec/server").read_bytes() == data


async def test_an_unknown_scheme_is_refused_by_name(artifacts: Artifacts) -> None:
    with pytest.raises(Permanent, match="ftp:// is not yet supported"):
        async with artifacts.deliver(spec("ftp://bucket/web.tar", b""), "web"):
            pass
    assert await artifacts.store.collect([]) == []


async def test_strip_and_archive_are_part_of_what_is_delivered(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = Tar().file("web-1.0/bin/web", b"x", mode=0o755).end()
    url = server.put("web.tar", data)
    async with artifacts.deliver(spec(url, data, strip=1), "web") as delivery:
        assert (await delivery.published() / "bin/web").exists()
    failure = await fail(artifacts, url, data, archive="tar.gz")
    assert failure.reason == "ArchiveBroken"
