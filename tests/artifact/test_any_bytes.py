"""Whatever the bytes: a clean tree or a refusal, and nothing outside."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.artifact.archive.links import Links
from agent.artifact.archive.refusal import Refused
from agent.artifact.limits import Limits
from tests.artifact.trees import snapshot, unpack
from tests.kit.archives import Tar, header, padded, records

LIMITS = Limits(unpacked=4 << 20, ratio_from=1 << 20, entries=200)
QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "a/b", "./a", "a/", "..", "../x", "/x", "a/../b", "l", "l/x", "a/b/c/d", ".", ""]
    ),
    st.lists(st.sampled_from(["a", "b", "l", "..", ".", ""]), max_size=5).map("/".join),
    st.binary(max_size=120),
)
KINDS = st.one_of(st.sampled_from([b"0", b"\0", b"1", b"2", b"5"]), st.binary(min_size=1, max_size=1))
SIZES = st.one_of(st.sampled_from([0, 0, 0, 5, 600]), st.binary(min_size=12, max_size=12))
RECORDS = st.dictionaries(
    st.sampled_from(["path", "linkpath", "size", "mtime", "comment"]),
    st.one_of(st.text(max_size=30), st.sampled_from(["5", "600", "../x", "a/b", "1.5"])),
    max_size=3,
)
ENTRIES = st.one_of(
    st.builds(
        lambda name, kind, size, mode, link: header(name, kind=kind, size=size, mode=mode, link=link),
        NAMES, KINDS, SIZES, st.integers(0, 0o7777), NAMES,
    ),
    st.builds(lambda name, data: header(name, size=len(data)) + padded(data), NAMES, st.binary(max_size=999)),
    RECORDS.map(lambda values: bytes(Tar().pax(records(**values)).data)),
    st.builds(lambda name, kind: bytes(Tar().long(name, kind).data), NAMES, st.sampled_from([b"L", b"K"])),
    st.binary(max_size=700),
)  # fmt: skip
STREAMS = st.builds(
    lambda parts, ended: b"".join(parts) + bytes(1024 if ended else 0),
    st.lists(ENTRIES, max_size=8),
    st.booleans(),
)


def judge(data: bytes, step: int, strip: int = 0) -> bool:
    """Unpack into a fresh place with neighbours; True when it was unpacked. Fails when it did harm."""
    base = Path(tempfile.mkdtemp())
    try:
        (base / "x").write_text("alive")
        (base / "inner").mkdir()
        before = snapshot(base)
        try:
            unpack(data, base / "inner/tree", step=step, strip=strip, limits=LIMITS)
        except Refused:
            whole = False
        else:
            whole = True
            assert_clean(base / "inner/tree")
        shutil.rmtree(base / "inner/tree", ignore_errors=True)
        assert snapshot(base) == before
        return whole
    finally:
        shutil.rmtree(base)


def assert_clean(tree: Path) -> None:
    """Only directories, plain files and links that stay inside; no special bits."""
    inside = os.path.realpath(tree)
    for directory, names, files in os.walk(tree):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                real = os.path.realpath(path)
                assert real == inside or real.startswith(inside + "/")
            else:
                assert stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)
                assert stat.S_IMODE(info.st_mode) in (0o755, 0o644)


@QUICK
@given(STREAMS, st.integers(1, 3000), st.integers(0, 2))
def test_any_sequence_of_headers_is_unpacked_cleanly_or_refused(data: bytes, step: int, strip: int) -> None:
    judge(data, step, strip)


@QUICK
@given(STREAMS, st.integers(1, 3000))
def test_any_sequence_of_headers_inside_gzip_is_too(data: bytes, step: int) -> None:
    judge(gzip.compress(data, 1), step)


GOOD = (
    Tar()
    .directory("a/b")
    .file("a/b/run", b"#!/bin/sh\n" * 100, mode=0o755)
    .pax(records(path="a/other", mtime="1.5"))
    .file("x")
    .long("a/" + "n" * 150)
    .file("y")
    .symlink("a/l", "b/run")
    .hardlink("a/h", "a/b/run")
    .end()
)


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(GOOD)),
    st.booleans(),
    st.booleans(),
)
def test_any_damage_to_a_good_archive_is_unpacked_cleanly_or_refused(
    damage: list[tuple[int, int]], cut: int, cutting: bool, zipped: bool
) -> None:
    data = bytearray(GOOD)
    for position, value in damage:
        data[position] = value
    short = bytes(data[:cut] if cutting else data)
    judge(gzip.compress(short, 1) if zipped else short, 1000)


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=3),
    st.integers(1, 500),
)
def test_damaged_gzip_passes_only_when_it_means_the_same(damage: list[tuple[int, int]], step: int) -> None:
    zipped = bytearray(gzip.compress(GOOD, 9, mtime=0))
    for position, value in damage:
        zipped[10 + position % (len(zipped) - 10)] ^= value
    if judge(bytes(zipped), step):
        assert gzip.decompress(zipped) == GOOD


@QUICK
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=6).map("/".join),
        max_size=6,
    )
)
def test_links_are_judged_as_the_kernel_walks_them(links: dict[str, str]) -> None:
    base = Path(tempfile.mkdtemp())
    try:
        tree = base / "tree"
        tree.mkdir()
        judged = Links(LIMITS)
        for path, target in links.items():
            parent = (tree / path).parent
            if any((tree / p).is_symlink() for p in Path(path).parents):
                continue  # not a path the writer would take
            parent.mkdir(parents=True, exist_ok=True)
            if not (tree / path).is_symlink() and not (tree / path).exists():
                (tree / path).symlink_to(target)
                judged.add(path.encode(), target.encode())
        try:
            judged.check()
        except Refused:
            return  # stricter than the kernel where nothing is there: that is fine
        assert_clean(tree)
    finally:
        shutil.rmtree(base)
