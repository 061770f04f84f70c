from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import random
import tempfile
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.demo.git_server import git
from agent.source.git.pack import Pack, PackLimits, object_id
from agent.source.git.pktline import Garbled
from agent.source.git.spool import TooLarge
from tests.kit.git_objects import BLOB, OFS_DELTA, REF_DELTA, entry, number, pack, varint
from tests.kit.git_server import Repository

SMALL = PackLimits(object=1 << 20, inflated=4 << 20, objects=100)


async def packed(repository: Repository, *options: str) -> bytes:
    """Everything in the repository, packed by git."""
    await git("repack", "-a", "-d", "-q", "-f", "--depth=50", "--window=50", directory=repository.path)
    process = await asyncio.create_subprocess_exec(
        *("git", "pack-objects", "--all", "--stdout", "-q", *options),
        cwd=repository.path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    data, _ = await process.communicate()
    assert process.returncode == 0
    return data


async def everything(repository: Repository) -> dict[str, str]:
    lines = await git(
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objectname) %(objecttype)",
        directory=repository.path,
    )
    return dict(line.split() for line in lines.splitlines())


async def filled(repository: Repository) -> None:
    """Files that git will store as chains of deltas."""
    rng = random.Random(7)
    text = "\n".join(f"key_{i}: {rng.random()}" for i in range(200))
    for revision in range(6):
        text += f"\nrevision: {revision} {rng.random()}"
        await repository.commit({f"d{i}/f.yaml": f"{text}\nname: {i}" for i in range(10)})
    await repository.publish()


KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}


@pytest.mark.parametrize("options", [["--delta-base-offset"], [], ["--window=0"]])
async def test_every_object_that_git_packed_is_found_with_its_content(
    state: Repository, options: list[str]
) -> None:
    await filled(state)
    data = await packed(state, *options)
    read = Pack(data, "sha1")
    wanted = await everything(state)
    assert len(read) == len(wanted)
    for oid, kind in wanted.items():
        found, content = read.get(oid)
        assert found == KINDS[kind]
        assert object_id(found, content, "sha1") == oid


async def test_a_pack_that_does_not_fit_into_memory_gives_the_same_objects(state: Repository) -> None:
    await filled(state)
    data = await packed(state, "--delta-base-offset")
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        read = Pack(
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "sha1", limits=PackLimits(kept=10_000)
        )
    for oid in await everything(state):
        kind, content = read.get(oid)
        assert object_id(kind, content, "sha1") == oid
    read.close()
    read.close()
    with pytest.raises(KeyError):
        read.get(oid)


async def test_sha256_packs_are_read(forge: object, tmp_path: Path) -> None:
    from tests.kit.git_server import Forge

    assert isinstance(forge, Forge)
    repository = await forge.repository("new.git", object_format="sha256")
    commit = await repository.put({"a": "b"})
    assert len(commit) == 64
    assert Pack(await packed(repository), "sha256").get(commit)[0] == 1


def test_a_delta_may_come_before_its_base() -> None:
    base = b"hello world, hello world"
    base_id = object_id(BLOB, base, "sha1")
    result = base + b"!"
    first = number(len(base)) + number(len(result)) + b"\x90\x18" + b"\x01!"
    second = number(len(result)) + number(len(result) + 1) + b"\x90\x19" + b"\x01?"
    delta_on_base = entry(REF_DELTA, first, bytes.fromhex(base_id))
    delta_on_delta = entry(OFS_DELTA, second, bytes([len(delta_on_base)]))
    read = Pack(pack([delta_on_base, delta_on_delta, entry(BLOB, base)]), "sha1")
    for content in (base, result, result + b"?"):
        assert read.get(object_id(BLOB, content, "sha1")) == (BLOB, content)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a pack"),
        (b"PACK" + bytes(40), "not a pack"),
        (pack([entry(BLOB, b"x")])[:-1] + b"\0", "checksum"),
        (pack([entry(BLOB, b"x")], count=2), "ends"),
        (pack([entry(BLOB, b"x"), entry(BLOB, b"y")], count=1), "goes on"),
        (pack([entry(BLOB, b"x" * 100, size=99)]), "larger"),
        (pack([entry(BLOB, b"x" * 100, size=101)]), "smaller"),
        (pack([entry(BLOB, b"", size=1)]), "smaller"),
        (pack([varint(BLOB, 5) + b"not deflated at all"]), "inflated"),
        (pack([varint(BLOB, 5) + zlib.compress(b"12345")[:-3]]), "middle"),
        (pack([entry(5, b"x")]), "type 5"),
        (pack([entry(0, b"x")]), "type 0"),
        (pack([entry(REF_DELTA, b"\x01\x01", bytes(20))]), "base is not in it"),
        (pack([entry(OFS_DELTA, b"\x01\x01", b"\x05")]), "no object"),
        (pack([entry(OFS_DELTA, b"\x01\x01", b"\x00")]), "no object"),
        (pack([entry(OFS_DELTA, b"\x01\x01", b"\xff" * 30 + b"\x00")]), "no object"),
        (pack([b"\xbf" + b"\xff" * 20 + b"\x00"]), "absurd"),
        (
            pack([entry(BLOB, b"x"), entry(OFS_DELTA, b"\x09\x01\x01x", bytes([len(entry(BLOB, b"x"))]))]),
            "fit",
        ),
        (pack([entry(BLOB, b"x"), entry(OFS_DELTA, b"\x81", bytes([len(entry(BLOB, b"x"))]))]), "sizes"),
    ],
)
def test_damaged_packs_are_garbled(data: bytes, what: str) -> None:
    with pytest.raises(Garbled, match=what):
        Pack(data, "sha1", limits=SMALL)


def test_sizes_are_refused_before_they_are_allocated() -> None:
    huge = pack([entry(BLOB, b"", size=1 << 40)])
    with pytest.raises(TooLarge, match="object of"):
        Pack(huge, "sha1")
    base = b"x" * 65536
    bomb = number(len(base)) + number(1 << 40) + b"\x80" * 1000
    data = pack([entry(BLOB, base), entry(OFS_DELTA, bomb, bytes([len(entry(BLOB, base))]))])
    with pytest.raises(TooLarge, match="object of"):
        Pack(data, "sha1", limits=SMALL)


def test_many_objects_that_each_may_be_are_bounded_together() -> None:
    bombs = pack([entry(BLOB, bytes(1 << 20)[: (1 << 20) - i]) for i in range(6)])
    assert len(bombs) < 10_000
    with pytest.raises(TooLarge, match="inflates"):
        Pack(bombs, "sha1", limits=SMALL)
    with pytest.raises(TooLarge, match="objects"):
        Pack(pack([], count=101), "sha1", limits=SMALL)


def test_reading_again_and_again_is_not_what_the_bound_counts() -> None:
    contents = [os.urandom(1 << 18) for _ in range(8)]
    limits = PackLimits(inflated=4 << 20, kept=1 << 18)
    read = Pack(pack([entry(BLOB, content) for content in contents]), "sha1", limits=limits)
    for _ in range(5):
        for content in contents:
            assert read.get(object_id(BLOB, content, "sha1")) == (BLOB, content)


def test_indexing_stops_when_told() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedError):
        Pack(pack([entry(BLOB, b"x")]), "sha1", stop=stop)


BASE = b"the quick brown fox " * 20
WHOLE = pack(
    [
        entry(BLOB, BASE),
        entry(
            REF_DELTA,
            number(400) + number(401) + b"\xb0\x90\x01\x01x",
            bytes.fromhex(object_id(BLOB, BASE, "sha1")),
        ),
        entry(BLOB, b""),
    ]
)


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE) - 21), st.binary(min_size=1, max_size=4))
def test_no_damage_crashes_the_reader_or_gives_wrong_content(at: int, damage: bytes) -> None:
    body = bytearray(WHOLE[:-20])
    body[at : at + len(damage)] = damage
    data = bytes(body)
    try:
        read = Pack(data + hashlib.sha1(data).digest(), "sha1", limits=SMALL)
    except (Garbled, TooLarge):
        return
    for oid in list(read._offsets):
        kind, content = read.get(oid)
        assert object_id(kind, content, "sha1") == oid
