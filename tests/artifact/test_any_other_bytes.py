"""The same for zip, sparse files and other compressions: whatever the bytes, a clean tree or a refusal."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from tests.artifact.test_any_bytes import ENTRIES, NAMES, QUICK, judge
from tests.kit.archives import Tar
from tests.kit.odd_archives import COMPRESS, gnu_sparse, pax_sparse
from tests.kit.zips import Zip, zip64

GOOD_ZIP = (
    Zip()
    .file("a/b/run", b"#!/bin/sh\n" * 50, mode=0o100755)
    .file("a/", b"", mode=0o040755)
    .file("x", b"stored", method=0)
    .symlink("a/l", "b/run")
    .file("streamed", b"later" * 30, flags=8, local={"crc": 0, "packed": 0, "size": 0})
    .end(b"a comment")
)
GOOD_ZIP64 = zip64(Zip().file("f").file("g", b"more" * 100))
DAMAGE = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4)


def damaged(data: bytes, damage: list[tuple[int, int]], cut: int, cutting: bool) -> bytes:
    changed = bytearray(data)
    for position, value in damage:
        changed[position % len(changed)] = value
    return bytes(changed[: cut % len(changed)] if cutting else changed)


def test_what_is_damaged_below_was_good() -> None:
    assert judge(GOOD_ZIP, 100)
    assert judge(GOOD_ZIP64, 100)


@QUICK
@given(st.sampled_from([GOOD_ZIP, GOOD_ZIP64]), DAMAGE, st.integers(0, 5000), st.booleans())
def test_any_damage_to_a_good_zip_is_unpacked_cleanly_or_refused(
    good: bytes, damage: list[tuple[int, int]], cut: int, cutting: bool
) -> None:
    judge(damaged(good, damage, cut, cutting), 1000)


@QUICK
@given(DAMAGE)
def test_a_damaged_zip_never_has_other_contents_than_python_reads(damage: list[tuple[int, int]]) -> None:
    """Where both accept it; a bit in a name or a mode may well have changed.

    Python refuses archives that need a newer version than it knows, and we do not look into what a
    directory may have for contents.
    """
    data = GOOD_ZIP[:4] + damaged(GOOD_ZIP[4:], damage, 0, False)  # else it is one plain file
    if judge(data, 1000):
        with suppress(NotImplementedError), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    archive.read(entry)  # verifies its checksum


@QUICK
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.binary(max_size=200),
            st.sampled_from([0o100644, 0o100755, 0o040755, 0o120777, 0o010644, 0, 0o104755]),
            st.sampled_from([0, 8]),
            st.sampled_from([0, 3, 19]),
            st.sampled_from([0, 8, 1 << 11, 1]),
        ),
        max_size=5,
    ),
    st.integers(1, 500),
    st.integers(0, 2),
)
def test_any_zip_is_unpacked_cleanly_or_refused(
    entries: list[tuple[str | bytes, bytes, int, int, int, int]], step: int, strip: int
) -> None:
    archive = Zip()
    for name, content, mode, method, host, flags in entries:
        archive.file(name, content, mode=mode, method=method, host=host, flags=flags)
    judge(archive.end(), step, strip)


NUMBERS = st.one_of(st.integers(0, 2000), st.sampled_from([1 << 30, 8**11 - 1]))


@QUICK
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4),
    st.none() | st.lists(st.tuples(NUMBERS, NUMBERS), max_size=21),
    NUMBERS,
    st.binary(max_size=2000),
    st.integers(1, 3000),
)
def test_any_sparse_file_of_gnu_is_unpacked_cleanly_or_refused(
    extents: list[tuple[int, int]],
    more: list[tuple[int, int]] | None,
    size: int,
    content: bytes,
    step: int,
) -> None:
    judge(Tar().raw(gnu_sparse("s", extents, size, content, more=more)).end(), step)


@QUICK
@given(
    st.one_of(
        st.binary(max_size=600),
        st.lists(st.one_of(NUMBERS, st.integers(-2, 3)), max_size=9).map(
            lambda numbers: "".join(f"{number}\n" for number in numbers).encode()
        ),
    ),
    st.one_of(NUMBERS.map(str), st.text(max_size=5)),
    st.binary(max_size=2000),
    st.integers(1, 3000),
)
def test_any_sparse_file_of_pax_is_unpacked_cleanly_or_refused(
    listing: bytes, size: str, content: bytes, step: int
) -> None:
    judge(Tar().raw(pax_sparse("s", listing, size, content)).end(), step)


@QUICK
@given(
    st.sampled_from(sorted(COMPRESS)),
    st.lists(ENTRIES, max_size=4),
    DAMAGE,
    st.integers(0, 5000),
    st.booleans(),
    st.integers(1, 999),
)
def test_any_compressed_bytes_are_unpacked_cleanly_or_refused(
    name: str, entries: list[bytes], damage: list[tuple[int, int]], cut: int, cutting: bool, step: int
) -> None:
    data = COMPRESS[name](b"".join(entries) + bytes(1024))
    judge(data, step)
    judge(damaged(data, damage, cut, cutting), step)
