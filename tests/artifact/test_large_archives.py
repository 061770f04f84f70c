"""Archives that are inflated in one thread and written in another."""

from __future__ import annotations

import errno
import gzip
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.artifact.archive import tree
from agent.artifact.archive.refusal import Refused
from agent.artifact.archive.unpack import Form, Unpacker
from agent.artifact.limits import DEFAULTS
from agent.kit import writeback
from agent.kit.ahead import Ahead
from tests.artifact.trees import snapshot, unpack
from tests.kit.archives import Tar
from tests.kit.odd_archives import COMPRESS

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "zstd": COMPRESS["zstd"],
}


def files(count: int = 60) -> dict[str, bytes]:
    chance = random.Random(5)
    return {f"d{n % 7}/f{n}": chance.randbytes(chance.randrange(200_000)) for n in range(count)}


def unpacking(root: Path) -> Unpacker:
    root.mkdir()
    return Unpacker(root, Form.AUTO, "bin/web", 0, DEFAULTS)


def tar() -> bytes:
    archive = Tar()
    for name, content in files().items():
        archive.file(name, content)
    return archive.end()


@pytest.mark.parametrize("kind", ["tar", "gzip", "zstd"])
def test_a_large_archive_is_unpacked_as_a_small_one_is(kind: str, tmp_path: Path) -> None:
    data = COMPRESSED[kind](tar())
    unpack(data, tmp_path / "whole", step=len(data))
    unpack(data, tmp_path / "bytewise", step=70_001)
    found = snapshot(tmp_path / "whole")
    assert found == snapshot(tmp_path / "bytewise")
    wanted = files()
    assert {os.fsdecode(path): entry[2] for path, entry in found.items() if entry[0] == "file"} == wanted


def test_damage_far_inside_names_the_entry_and_leaves_no_thread(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(tar(), 1))
    data[len(data) * 3 // 4] ^= 0xFF
    with pytest.raises(Refused) as told:
        unpack(bytes(data), tmp_path / "out")
    assert told.value.entry.startswith(b"d")
    assert [one.name for one in threading.enumerate() if one.name == "artifact-write"] == []


def test_what_is_wrong_with_an_entry_counts_before_what_is_damaged_behind_it(tmp_path: Path) -> None:
    archive = Tar()
    for name, content in files().items():
        archive.file(name, content)
    archive.file("../outside", b"x")
    for name, content in files().items():
        archive.file(f"more/{name}", content)
    data = bytearray(gzip.compress(archive.end(), 1))
    data[-6] ^= 0xFF  # of the checksum at the end
    with pytest.raises(Refused, match="leaves the directory"):
        unpack(bytes(data), tmp_path / "out")


def test_the_disk_begins_with_many_small_files_before_the_archive_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    told = threading.Event()

    def hear(fd: int) -> None:
        begun.append(os.readlink(f"/proc/self/fd/{fd}"))
        told.set()

    monkeypatch.setattr(tree, "_MANY", 20)
    monkeypatch.setattr(writeback, "sync_filesystem_of", hear)
    archive = Tar()
    for number in range(50):
        archive.file(f"d/{number}", b"small")
    unpacker = unpacking(tmp_path / "out")
    unpacker.feed(archive.end())
    assert told.wait(30)
    unpacker.finish()
    unpacker.close()
    assert set(begun) == {str(tmp_path / "out")}


def test_a_disk_that_fails_early_fails_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def fail(fd: int) -> None:
        tried.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(tree, "_MANY", 5)
    monkeypatch.setattr(writeback, "sync_filesystem_of", fail)
    archive = Tar()
    for number in range(5):
        archive.file(f"d/{number}", b"small")
    unpacker = unpacking(tmp_path / "out")
    unpacker.feed(archive.end())
    assert tried.wait(30)
    with pytest.raises(OSError, match="Input/output error"):
        unpacker.finish()
    unpacker.close()


def test_the_disk_begins_with_larger_files_before_the_archive_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: set[str] = set()
    monkeypatch.setattr(writeback, "begin_writing", lambda fd: begun.add(os.readlink(f"/proc/self/fd/{fd}")))
    unpack(tar(), tmp_path / "out")
    larger = {str(tmp_path / "out" / name) for name, content in files().items() if len(content) >= 65536}
    assert begun
    assert begun <= larger


def test_a_stop_is_heard_by_both_threads(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise Enough

    (tmp_path / "out").mkdir()
    unpacker = Unpacker(tmp_path / "out", Form.AUTO, "bin/web", 0, DEFAULTS, check)

    def use() -> None:
        data = tar()
        for start in range(0, len(data), 1 << 16):
            unpacker.feed(data[start : start + (1 << 16)])
        unpacker.finish()

    with pytest.raises(Enough):
        use()
    unpacker.close()
    assert [one.name for one in threading.enumerate() if one.name == "artifact-write"] == []


def test_work_ahead_is_done_in_order_and_never_further_than_allowed() -> None:
    done: list[int] = []
    room = threading.Semaphore(0)

    def work(item: int) -> None:
        assert room.acquire(timeout=30)
        done.append(item)

    ahead = Ahead("test", work, 3)
    for item in range(4):  # one in hand, three wait
        ahead.put(item, 1)
        while item == 0 and ahead._items:
            time.sleep(0.001)
    late = threading.Thread(target=ahead.put, args=(4, 1))
    late.start()
    late.join(0.05)
    assert late.is_alive()
    room.release(5)
    late.join(30)
    ahead.flush()
    assert done == list(range(5))
    ahead.close()
    ahead.close()


def test_what_work_ahead_raises_is_raised_by_everyone_who_asks() -> None:
    def work(item: int) -> None:
        raise ValueError(item)

    ahead = Ahead("test", work, 1)

    def put() -> None:
        for _ in range(100):
            ahead.put(7, 1)

    with pytest.raises(ValueError, match="7"):
        put()
    with pytest.raises(ValueError, match="7"):
        ahead.flush()
    ahead.close()


def test_closing_drops_what_waits() -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.set()
        assert go.wait(30)
        done.append(item)

    ahead = Ahead("test", work, 100)
    for item in range(10):
        ahead.put(item, 1)
    assert begun.wait(30)
    threading.Timer(0.01, go.set).start()
    ahead.close()
    assert done == [0]
