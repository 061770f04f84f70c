"""Other compressions than gzip, zip, sparse files and names that look alike: unpacked as they are meant."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from agent.artifact.archive.refusal import Refused
from agent.artifact.archive.unpack import Form
from agent.artifact.limits import Limits
from tests.artifact.test_good_archives import need_gnu_tar, packed
from tests.artifact.trees import snapshot, unpack
from tests.kit.archives import Tar, records
from tests.kit.odd_archives import COMPRESS, gnu_sparse, pax_sparse
from tests.kit.zips import LINK, Zip, zip64


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("step", [7, 1 << 16])
def test_a_compressed_tar_is_unpacked_in_any_pieces(compression: str, step: int, tmp_path: Path) -> None:
    noise = os.urandom(30_000) + bytes(600_000)
    data = COMPRESS[compression](Tar().file("bin/web", noise, mode=0o755).symlink("web", "bin/web").end())
    unpack(data, tmp_path / "tree", step=step)
    assert (tmp_path / "tree/web").read_bytes() == noise
    assert (tmp_path / "tree/bin/web").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("compression", COMPRESS)
def test_several_members_are_one_stream(compression: str, tmp_path: Path) -> None:
    tar, compress = Tar().file("f", b"x" * 5000).end(), COMPRESS[compression]
    unpack(compress(tar[:700]) + compress(b"") + compress(tar[700:]), tmp_path / "tree", step=3)
    assert (tmp_path / "tree/f").read_bytes() == b"x" * 5000


def test_zstd_may_begin_with_a_frame_to_be_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    unpack(skipped + COMPRESS["zstd"](Tar().file("f").end()), tmp_path / "tree")
    assert (tmp_path / "tree/f").read_bytes() == b"content"


def test_xz_of_the_highest_level_is_unpacked_and_one_that_wants_more_memory_is_not(tmp_path: Path) -> None:
    tar = Tar().file("f").end()
    unpack(lzma.compress(tar, preset=9 | lzma.PRESET_EXTREME), tmp_path / "tree")
    data = bytearray(lzma.compress(tar, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    position = data.index(b"\x21\x01", 12)  # the filter's id and the length of its property
    data[position + 2] = 40  # a dictionary of 4 GiB
    end = 12 + data[12] * 4  # of the block's header, before its checksum
    data[end : end + 4] = zlib.crc32(data[12:end]).to_bytes(4, "little")
    with pytest.raises(Refused, match="Memory usage limit"):
        unpack(bytes(data), tmp_path / "other")


@pytest.mark.parametrize(
    ("form", "other"),
    [(Form.TAR_BZ2, "xz"), (Form.TAR_XZ, "zstd"), (Form.TAR_ZST, "bzip2"), (Form.ZIP, "zstd")],
)
def test_what_is_said_to_be_one_form_is_refused_in_another(form: Form, other: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="expected a"):
        unpack(COMPRESS[other](Tar().file("f").end()), tmp_path / "tree", form=form)
    with pytest.raises(Refused, match="but this is zip" if form is not Form.ZIP else "nothing is left"):
        unpack(Zip().file("f").end(), tmp_path / "zip", form=form, strip=1)


SINGLE = {"gzip": Form.GZ, "bzip2": Form.BZ2, "xz": Form.XZ, "zstd": Form.ZST}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("size", [1, 700, 3_000_000])
def test_one_compressed_file_is_placed_unpacked(compression: str, size: int, tmp_path: Path) -> None:
    program = os.urandom(size)
    unpack(COMPRESS[compression](program), tmp_path / "tree", form=SINGLE[compression], target="bin/tool")
    assert (tmp_path / "tree/bin/tool").read_bytes() == program
    assert (tmp_path / "tree/bin/tool").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("compression", COMPRESS)
def test_one_compressed_file_must_be_asked_for_and_be_no_archive(compression: str, tmp_path: Path) -> None:
    form = SINGLE[compression]
    with pytest.raises(Refused, match="holds no tar archive") as told:
        unpack(COMPRESS[compression](b"program" * 500), tmp_path / "auto")
    assert f"archive: {form} " in told.value.remedy
    with pytest.raises(Refused, match="holds a tar archive") as told:
        unpack(COMPRESS[compression](Tar().file("f").end()), tmp_path / "tar", form=form)
    assert f"archive: tar.{form}" in told.value.remedy
    with pytest.raises(Refused, match=r"but this is not [a-zA-Z0-9]*: it is not compressed"):
        unpack(b"program" * 500, tmp_path / "bare", form=form)
    with pytest.raises(Refused, match=r"but this is not [a-zA-Z0-9]*: it is zip"):
        unpack(Zip().file("f").end(), tmp_path / "zip", form=form)


def test_a_zip_of_python_is_unpacked_with_modes_links_and_directories(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in [
            ("web/bin/web", 0o100755, b"#!/bin/sh\n" * 5000),
            ("web/etc/größe", 0o100600, b"stored"),
            ("web/latest", LINK, b"bin/web"),
            ("web/empty/", 0o040755, b""),
        ]:
            info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10))
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_STORED if content == b"stored" else zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    unpack(buffer.getvalue(), tmp_path / "tree", strip=1, step=100)
    assert {
        name: entry[:3] for name, entry in snapshot(tmp_path / "tree").items()
    } == {
        b"bin": ("directory", "0o755"),
        b"bin/web": ("file", "0o755", b"#!/bin/sh\n" * 5000),
        b"empty": ("directory", "0o755"),
        b"etc": ("directory", "0o755"),
        "etc/größe".encode(): ("file", "0o644", b"stored"),
        b"latest": ("link", b"bin/web"),
    }  # fmt: skip
    assert (tmp_path / "tree/bin/web").stat().st_mtime == 1_714_979_290


def test_a_zip_of_git_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("run")
    git = [
        "git",
        "-C",
        str(source),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.c",
        "-c",
        "core.autocrlf=false",
    ]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    archive = [*git, "archive", "--format=zip", "--prefix=web-1/", "HEAD"]
    unpack(subprocess.run(archive, check=True, capture_output=True).stdout, tmp_path / "tree", strip=1)
    assert os.readlink(tmp_path / "tree/link") == "run"
    assert os.access(tmp_path / "tree/link", os.X_OK)


def test_a_zip_made_for_streaming_and_a_zip64_are_unpacked(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]  # a buffer, as zipfile hands it over
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f", b"streamed" * 1000)
    unpack(pipe.data, tmp_path / "streamed")
    assert (tmp_path / "streamed/f").read_bytes() == b"streamed" * 1000
    wide = Zip().file(
        "f",
        extra=b"\1\0\x08\0" + (7).to_bytes(8, "little"),
        listed={"size": 0xFFFFFFFF},
        local={"extra": b""},
    )
    unpack(zip64(wide), tmp_path / "wide")
    assert (tmp_path / "wide/f").read_bytes() == b"content"


def test_a_zip_with_a_comment_and_aligned_entries_is_unpacked(tmp_path: Path) -> None:
    data = Zip().file("a", extra=b"\0\0\0").file("b", method=0).end(comment=b"PK\x05\x06 is no end here")
    unpack(data, tmp_path / "tree")
    assert sorted(os.listdir(tmp_path / "tree")) == ["a", "b"]


def test_a_zip_of_another_system_has_plain_files_and_no_modes(tmp_path: Path) -> None:
    unpack(Zip().file("web.exe", host=0, mode=0o777).end(), tmp_path / "tree")
    assert (tmp_path / "tree/web.exe").stat().st_mode & 0o777 == 0o644


def test_nothing_of_a_zip_is_left_beside_the_tree(tmp_path: Path) -> None:
    unpack(Zip().file("f").end(), tmp_path / "tree")
    assert os.listdir(tmp_path) == ["tree"]


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax"], ["--sparse-version=0.1"]])
def test_sparse_files_of_gnu_tar_are_whole_and_sparse_again(options: list[str], tmp_path: Path) -> None:
    need_gnu_tar()
    source = tmp_path / "source"
    source.mkdir()
    for name, parts, size in [
        ("many", range(0, 6_000_000, 200_000), 6_000_000),
        ("hole at the end", [0], 3_000_000),
        ("nothing but a hole", [], 2_000_000),
        ("plain", [0], 10),
    ]:
        with (source / name).open("wb") as file:
            for part in parts:
                file.seek(part)
                file.write(b"x" * 10)
            file.truncate(size)
    forms = options if "--format" in options[0] else ["--format=pax", *options]
    data = packed(source, *forms, "--sparse", ".")
    assert len(data) < 1_000_000
    unpack(data, tmp_path / "tree", step=1000)
    for name in os.listdir(source):
        assert (tmp_path / "tree" / name).read_bytes() == (source / name).read_bytes(), name
    assert (tmp_path / "tree/nothing but a hole").stat().st_blocks < 100


def test_a_sparse_file_counts_with_its_holes(tmp_path: Path) -> None:
    for number, data in enumerate(
        [gnu_sparse("s", [(0, 1)], 5000, b"x"), pax_sparse("s", b"1\n0\n1\n", 5000, b"x".ljust(1))]
    ):
        with pytest.raises(Refused, match="'s'"):
            unpack(Tar().raw(data).end(), tmp_path / f"tree-{number}", limits=Limits(unpacked=4999))


@pytest.mark.parametrize("pack", ["tar", "zip"])
def test_names_that_differ_in_case_or_unicode_form_are_different_files(pack: str, tmp_path: Path) -> None:
    twins = {
        "readme": b"1",
        "README": b"2",
        "caf\u00e9": b"3",
        "cafe\u0301": b"4",
        "\u212b": b"5",
        "\u00c5": b"6",
    }
    if pack == "tar":
        tar = Tar()
        for name, content in twins.items():
            tar.pax(records(path=name)).file("x", content)
        data = tar.end()
    else:
        archive = Zip()
        for name, content in twins.items():
            archive.file(name, content, flags=1 << 11)
        data = archive.end()
    unpack(data, tmp_path / "tree")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tree").iterdir()} == twins


def test_bzip2_of_several_blocks_is_unpacked(tmp_path: Path) -> None:
    noise = os.urandom(2_000_000)
    unpack(bz2.compress(Tar().file("f", noise).end(), 1), tmp_path / "tree")
    assert (tmp_path / "tree/f").read_bytes() == noise
