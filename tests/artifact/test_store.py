from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.artifact import inventory
from agent.artifact.artifacts import Artifacts
from agent.artifact.inventory import beside
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded
from agent.kit.files import sync_directory
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import big, release, spec
from tests.kit.archives import Tar
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer


async def publish(artifacts: Artifacts, url: str, data: bytes) -> str:
    """Deliver, and give the id."""
    async with artifacts.deliver(spec(url, data), "web") as delivery:
        await delivery.published()
    return delivery.release


async def test_collecting_removes_all_but_what_is_kept(server: ArtifactServer, artifacts: Artifacts) -> None:
    store = artifacts.store
    ids = []
    for number in range(4):
        data = release(str(number).encode())
        ids.append(await publish(artifacts, server.put(f"web-{number}.tar.gz", data), data))
    removed = await store.collect([ids[1], ids[3], "0123456789ab-unknown"])
    assert sorted(removed) == sorted([ids[0], ids[2]])
    assert [store.has(i) for i in ids] == [False, True, False, True]
    assert (store.path(ids[1]) / "bin/web").read_bytes() == b"1"
    assert list((store.root / "trash").iterdir()) == []
    assert await store.collect([ids[1], ids[3]]) == []


async def test_a_release_loses_its_name_for_good_before_any_part_of_it_is_removed(
    artifacts: Artifacts, server: ArtifactServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = artifacts.store, release()
    name = await publish(artifacts, server.put("web.tar.gz", data), data)
    there = []

    def watched(directory: str | Path) -> None:
        whole = [tree for tree in (store.root / "trash").iterdir() if (tree / "bin/web").exists()]
        there.append((Path(directory), len(whole), store.inventory(name).exists()))
        sync_directory(directory)

    monkeypatch.setattr("agent.artifact.store.sync_directory", watched)
    assert await store.collect([]) == [name]
    assert there == [(store.root / "trash", 1, True)]
    assert not store.inventory(name).exists()


async def test_collecting_leaves_what_is_in_use(server: ArtifactServer, artifacts: Artifacts) -> None:
    data = release()
    url = server.put("web.tar.gz", data)
    async with artifacts.deliver(spec(url, data), "web") as delivery:
        await delivery.published()
        assert await artifacts.store.collect([]) == []
        assert artifacts.store.has(delivery.release)
        async with artifacts.deliver(spec(url, data), "web"):
            pass
        assert await artifacts.store.collect([]) == []
    assert await artifacts.store.collect([]) == [delivery.release]


async def test_removal_can_be_cancelled_and_is_gone_on_with(artifacts: Artifacts, tmp_path: Path) -> None:
    store = artifacts.store
    tree = store.path("0123456789ab-many")
    for number in range(3000):
        if number % 1000 == 0:
            (tree / str(number)).mkdir(parents=True)
        (tree / str(number - number % 1000) / f"f{number}").touch()
    collecting = asyncio.ensure_future(store.collect([]))
    await asyncio.wait([collecting], timeout=0.02)
    collecting.cancel()
    await asyncio.wait([collecting])
    assert not store.has("0123456789ab-many")
    await store.collect([])
    assert list((store.root / "trash").iterdir()) == []


def test_what_is_no_id_is_never_a_path(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("", ".", "..", "../../etc", "a/b", "0123456789ab/../x", "x" * 300, "0123456789ab-\n"):
        with pytest.raises(ValueError, match="not a release id"):
            store.path(name)


async def test_publishing_what_is_there_already_is_no_error(artifacts: Artifacts) -> None:
    store = artifacts.store
    for content in ("first", "second"):
        temp = store.new_temp()
        temp.mkdir()
        (temp / "f").write_text(content)
        written = beside(temp)
        inventory.write(written, {})
        path = await asyncio.to_thread(store.publish, temp, "0123456789ab-same", written)
    assert (path / "f").read_text() == "first"
    assert_no_traces(store)


async def test_sweeping_moves_leftovers_aside_and_entering_removes_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep/store")
    store.sweep()
    kept = store.path("0123456789ab-kept")
    kept.mkdir()
    left = store.new_temp()
    (left / "a/b").mkdir(parents=True)
    (left / "a").chmod(0o500)
    store.blob("abc").write_bytes(b"x")
    (store.signed / ".sha256-abc.1.tmp").write_bytes(b"half")
    store.sweep()
    assert_no_traces(store)
    assert list(store.signed.iterdir()) == []
    assert len(list((store.root / "trash").iterdir())) == 3
    async with Artifacts(store):
        async with asyncio.timeout(10):
            while list((store.root / "trash").iterdir()):
                await asyncio.sleep(0.005)
    assert kept.is_dir()


VICTIM = """
import asyncio, sys
from pathlib import Path
from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import Checksum
import msgspec
from tests.artifact.specs import spec

async def main():
    url, digest, root = sys.argv[1:]
    wanted = msgspec.structs.replace(spec(url), checksum=Checksum(algorithm="sha256", hex=digest))
    async with Artifacts(Store(Path(root))) as artifacts:
        async with artifacts.deliver(wanted, "web") as delivery:
            await delivery.published()

asyncio.run(main())
"""


async def test_after_kill_9_in_the_middle_of_unpacking_the_store_is_clean_and_works(tmp_path: Path) -> None:
    tar = Tar()
    for number in range(40):
        tar.file(f"f{number}", os.urandom(100_000))
    data = tar.end()
    stalled = asyncio.Event()
    whole = False

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        writer.write(data if whole else data[:3_000_000])
        await writer.drain()
        stalled.set()

    store = Store(tmp_path / "store")
    async with HostileServer(answer) as server:
        wanted = spec(server.url + "/web.tar", data)
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VICTIM, wanted.url, wanted.checksum.hex, str(store.root)
        )
        async with asyncio.timeout(30):
            await stalled.wait()
            while not list((store.root / "tmp").glob("*/f9")):
                await asyncio.sleep(0.005)
        victim.kill()
        assert await victim.wait() == -signal.SIGKILL
        assert list((store.root / "trees").iterdir()) == []
        store.sweep()
        assert_no_traces(store)
        whole = True
        async with Artifacts(store) as artifacts:
            release = await publish(artifacts, wanted.url, data)
        assert len(list(store.path(release).iterdir())) == 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB and 200 inodes."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("CI must have the rights of root")
        pytest.skip("needs the rights of root")
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=8m,nr_inodes=200"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True
    ).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must be able to mount a tmpfs")
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


async def fail(artifacts: Artifacts, url: str, data: bytes) -> Failure:
    """The failure of a delivery, with nothing left of it."""
    async with artifacts.deliver(spec(url, data), "web") as delivery:
        with pytest.raises(Failure) as caught:
            await delivery.published()
    assert_no_traces(artifacts.store)
    assert not artifacts.store.has(delivery.release)
    return caught.value


@pytest.mark.root
async def test_a_full_disk_needs_the_operator_and_leaves_room_for_what_fits(
    small_disk: Path, server: ArtifactServer
) -> None:
    async with Artifacts(Store(small_disk)) as artifacts:
        known = big(9 << 20)
        zipped = gzip.compress(Tar().file("zeros", bytes(20 << 20)).end())
        many = Tar()
        for number in range(300):
            many.file(f"f{number}", b"")
        for data in (known, zipped, many.end()):
            failure = await fail(artifacts, server.put("web", data), data)
            assert isinstance(failure, OperatorNeeded)
            assert failure.reason == "DiskFull"
            assert "inodes are free" in str(failure)
            assert "free space" in failure.info.remedy
            assert os.statvfs(small_disk).f_bfree * os.statvfs(small_disk).f_frsize > 7 << 20
        fits = release()
        assert await publish(artifacts, server.put("web", fits), fits)


@pytest.mark.root
async def test_a_disk_that_became_read_only_needs_the_operator(
    small_disk: Path, server: ArtifactServer
) -> None:
    data = release()
    url = server.put("web", data)
    async with Artifacts(Store(small_disk)) as artifacts:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        failure = await fail(artifacts, url, data)
        assert (failure.reason, isinstance(failure, OperatorNeeded)) == ("DiskReadOnly", True)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert await publish(artifacts, url, data)
