from __future__ import annotations

import gzip
import os
import socket
import zlib
from pathlib import Path

import pytest

from agent.artifact.archive import inflate
from agent.artifact.archive.refusal import Refused
from agent.artifact.archive.unpack import Form, Unpacker
from agent.artifact.limits import Limits
from tests.artifact.trees import snapshot, unpack
from tests.kit.archives import BLOCK, Tar, bomb, header, records
from tests.kit.archives import HOSTILE as BAD_TARS
from tests.kit.odd_archives import BAD_ODD, COMPRESS
from tests.kit.zips import BAD_ZIPS, Zip

HOSTILE = {**BAD_TARS, **BAD_ODD, **{f"zip: {name}": bad for name, bad in BAD_ZIPS.items()}}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory whose tree/ is unpacked into, with things around that must stay as they are."""
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "evil-directory").mkdir()
    return tmp_path


def refuse(outside: Path, data: bytes, *, limits: Limits | None = None, step: int = 1 << 16) -> Refused:
    """Unpack what must be refused, and see that nothing around the tree has changed."""
    before = snapshot(outside)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused) as caught:
        unpack(data, outside / "tree", limits=limits or Limits(), step=step)
    after = {path: entry for path, entry in snapshot(outside).items() if path.split(b"/")[0] != b"tree"}
    assert after == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return caught.value


def test_there_are_well_over_sixty_kinds_of_hostile_archives() -> None:
    assert len(BAD_TARS) >= 60
    assert len(BAD_ODD) >= 50
    assert len(BAD_ZIPS) >= 50


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("step", [1 << 16, 1000, 1])
def test_a_hostile_archive_is_refused_and_changes_nothing_outside(
    name: str, step: int, outside: Path
) -> None:
    bad = HOSTILE[name]
    refused = refuse(outside, bad.data, step=max(step, len(bad.data) // 20_000))
    assert refused.reason == bad.reason, str(refused)
    assert bad.names in str(refused)


@pytest.mark.parametrize("name", [name for name, bad in BAD_TARS.items() if len(bad.data) >= BLOCK])
def test_a_hostile_archive_is_refused_inside_gzip_too(name: str, outside: Path) -> None:
    refuse(outside, gzip.compress(HOSTILE[name].data, 1))


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("gzip")])
def test_damaged_gzip_is_refused_where_there_is_only_zlib(
    name: str, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflate, "_make", zlib.decompressobj)
    assert refuse(outside, HOSTILE[name].data, step=7).reason == HOSTILE[name].reason


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_bomb_of_any_compression_is_refused_by_its_ratio_and_named(compression: str, outside: Path) -> None:
    tar = header("zeros", size=80 << 20) + bytes(80 << 20) + bytes(2 * BLOCK)
    refused = refuse(outside, COMPRESS[compression](tar))
    assert (refused.reason, "'zeros'" in str(refused)) == ("ArchiveTooLarge", True)


def test_a_zip_is_limited_in_entries_bytes_and_ratio_naming_the_entry(outside: Path) -> None:
    many = Zip()
    for number in range(11):
        many.file(f"f{number}", b"")
    assert "'f10'" in str(refuse(outside, many.end(), limits=Limits(entries=10)))
    two = Zip().file("a", bytes(600)).file("b", bytes(600)).end()
    refused = refuse(outside / "evil-directory", two, limits=Limits(unpacked=1000))
    assert (refused.reason, "'b'" in str(refused)) == ("ArchiveTooLarge", True)


def test_a_compression_bomb_is_refused_by_its_ratio_long_before_it_is_unpacked(outside: Path) -> None:
    refused = refuse(outside, bomb(128 << 20))
    assert refused.reason == "ArchiveTooLarge"
    assert "250 times" in str(refused)
    assert (outside / "tree/zeros").stat().st_size <= 65 << 20


def test_total_size_is_limited_by_what_headers_announce(outside: Path) -> None:
    data = Tar().file("a", bytes(600)).file("b", bytes(600)).end()
    refused = refuse(outside, data, limits=Limits(unpacked=1000))
    assert refused.reason == "ArchiveTooLarge"
    assert "'b'" in str(refused)
    assert not (outside / "tree/b").exists()


def test_total_size_is_limited_after_the_end_of_the_archive_too(outside: Path) -> None:
    data = gzip.compress(Tar().file("a").end() + bytes(100_000))
    assert refuse(outside, data, limits=Limits(unpacked=50_000)).reason == "ArchiveTooLarge"


def test_the_number_of_entries_is_limited(outside: Path) -> None:
    tar = Tar()
    for number in range(11):
        tar.file(f"f{number}", b"")
    refused = refuse(outside, tar.end(), limits=Limits(entries=10))
    assert (refused.reason, "'f10'" in str(refused)) == ("ArchiveTooLarge", True)


def test_the_number_of_directories_that_are_only_implied_is_limited(outside: Path) -> None:
    tar = Tar()
    for number in range(4):
        tar.file(f"{number}/a/b/c/f", b"")
    assert refuse(outside, tar.end(), limits=Limits(entries=10)).reason == "ArchiveTooLarge"


def test_the_memory_that_links_take_is_limited(outside: Path) -> None:
    tar = Tar()
    for number in range(20):
        tar.symlink(f"l{number}", "x" * 90)
    assert refuse(outside, tar.end(), limits=Limits(links=1000)).reason == "ArchiveTooLarge"


def test_links_made_to_be_walked_for_ever_are_given_up(outside: Path) -> None:
    tar = Tar().symlink("l0", "x")
    for number in range(1, 38):  # each target walks the one before fifty times
        target = "/".join(f"l{number - 1}/.." for _ in range(9))
        tar.symlink(f"l{number}", target[:100].rsplit("/", 1)[0])
    assert refuse(outside, tar.end()).reason in ("ArchiveTooLarge", "ArchiveRefused")


def test_a_name_is_shown_without_what_would_forge_log_lines(outside: Path) -> None:
    refused = refuse(outside, Tar().file("../a\n2026 ERROR \x1b[31mforged" + "x" * 30).end())
    assert "\n" not in str(refused)
    assert "\x1b" not in str(refused)
    long = refuse(outside / "evil-directory", Tar().pax(records(path="../" + "y" * 3000)).file("x").end())
    assert len(str(long)) < 400


def test_a_socket_or_fifo_in_the_way_is_never_opened_for_writing(outside: Path) -> None:
    """Whoever could put one into the tree: a file is only ever made, never opened."""
    root = outside / "tree"
    root.mkdir()
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        for name in ("pipe", "socket"):
            unpacker = Unpacker(root, Form.AUTO, "bin/web", 0, Limits())
            with pytest.raises(Refused):
                unpacker.feed(Tar().file(name).end())
            unpacker.close()


def test_what_is_named_an_archive_must_be_one(outside: Path) -> None:
    page = b"<!DOCTYPE html><title>Log in</title>" + b" " * 600
    with pytest.raises(Refused, match="expected a tar archive"):
        unpack(page, outside / "a", form=Form.ARCHIVE)
    with pytest.raises(Refused, match="this is not gzip"):
        unpack(Tar().file("f").end(), outside / "b", form=Form.TAR_GZ)
    with pytest.raises(Refused, match="compressed with gzip"):
        unpack(gzip.compress(Tar().file("f").end()), outside / "c", form=Form.TAR)


def test_stripping_away_everything_is_an_error_that_says_so(outside: Path) -> None:
    with pytest.raises(Refused) as caught:
        unpack(Tar().directory("web").file("web/f").end(), outside / "tree", strip=2)
    assert caught.value.reason == "ArchiveEmpty"
    assert "strip" in caught.value.remedy


def test_stripping_does_not_hide_a_path_that_leaves(outside: Path) -> None:
    for name in ("../evil", "a/../../evil", "/evil"):
        with pytest.raises(Refused):
            unpack(Tar().file(name).end(), outside / f"tree-{len(name)}", strip=1)


def test_a_plain_file_cannot_be_placed_outside(outside: Path) -> None:
    for number, target in enumerate(("../evil", "/evil", "", ".", "a/../../evil")):
        with pytest.raises(Refused):
            unpack(b"#!/bin/sh\n", outside / f"tree-{number}", target=target)
    assert header("x")  # the shelf's builder is what made the archives above
