"""What is fine is unpacked as GNU tar would, and read back the same from disk."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from agent.artifact.archive import inflate
from agent.artifact.archive.unpack import Form
from tests.artifact.trees import snapshot, unpack
from tests.kit.archives import Tar, base256, header, padded, records

FORMATS = ["v7", "ustar", "oldgnu", "gnu", "pax"]


def need_gnu_tar() -> None:
    """Skip the test where tar is another one, but fail in CI."""
    tar = shutil.which("tar")
    if tar and b"GNU tar" in subprocess.run([tar, "--version"], capture_output=True, check=True).stdout:
        return
    if os.environ.get("CI"):
        pytest.fail("CI must have GNU tar")
    pytest.skip("GNU tar is missing")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with a bit of everything that is fine in every format."""
    root = tmp_path / "source"
    for number, (name, content) in enumerate(
        {
            "web/bin/web": b"#!/bin/sh\nexec true\n" * 5000,
            "web/etc/web.conf": b"port = 8080\n",
            "web/empty": b"",
            "web/block": bytes(512),
            "web/almost": b"x" * 511,
            "web/one more": b"y" * 513,
            "web/café/größe": "ü".encode() * 700,
            "web/-dash": b"-",
            "web/new\nline": b"\n",
            "web/a/b/c/d/e/f/g/deep": os.urandom(200_000),
        }.items()
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
    (root / "web/bin/web").chmod(0o755)
    (root / "web/empty-directory").mkdir(mode=0o755)
    (root / "web/a/up").symlink_to("../bin/web")
    (root / "web/latest").symlink_to("bin")
    (root / "web/dangling").symlink_to("not-there-yet")
    (root / "web/a/b/through").symlink_to("../../latest/web")
    os.link(root / "web/bin/web", root / "web/bin/web2")
    os.link(root / "web/a/b/c/d/e/f/g/deep", root / "web/a/shallow")
    return root


def packed(source: Path, *arguments: str) -> bytes:
    """What GNU tar makes of it."""
    return subprocess.run(
        ["tar", "-C", source, "-cf", "-", *arguments], check=True, capture_output=True
    ).stdout


def unpacked_by_tar(data: bytes, root: Path, *arguments: str) -> Path:
    """What GNU tar unpacks of it, to be compared with."""
    root.mkdir()
    command = ["tar", "-C", str(root), "--no-same-owner", "-xf", "-", *arguments]
    subprocess.run(command, input=data, check=True)
    return root


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("strip", [0, 1, 2])
@pytest.mark.parametrize("names", ["web", "./web", "."])
def test_the_tree_is_the_one_that_gnu_tar_unpacks(
    form: str, strip: int, names: str, source: Path, tmp_path: Path
) -> None:
    need_gnu_tar()
    if strip == 2:  # these would lead out of what is left, or to what is not
        for name in ("bin/web2", "a/shallow", "a/up", "a/b/through"):
            (source / "web" / name).unlink()
    data = packed(source, f"--format={form}", "--mode=u+rwX,go=rX", names)
    expected = unpacked_by_tar(data, tmp_path / "expected", f"--strip-components={strip}")
    unpack(data, tmp_path / "tree", strip=strip)
    assert snapshot(tmp_path / "tree") == snapshot(expected)
    assert len(snapshot(expected)) >= 8


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("step", [1, 511, 1 << 20])
def test_long_names_links_and_sizes_come_in_any_pieces(form: str, step: int, tmp_path: Path) -> None:
    need_gnu_tar()
    source = tmp_path / "source"
    long = source / ("d" * 200) / ("e" * 200)
    long.mkdir(parents=True)
    (long / ("f" * 255)).write_bytes(b"far away")
    (source / "to").symlink_to("d" * 200 + "/" + "e" * 200 + "/" + "f" * 255)
    os.link(long / ("f" * 255), source / "near")
    os.utime(source / "near", (5, 5))
    data = packed(source, f"--format={form}", "--mode=u+rwX,go=rX", ".")
    expected = unpacked_by_tar(data, tmp_path / "expected")
    unpack(data, tmp_path / "tree", step=step)
    assert snapshot(tmp_path / "tree") == snapshot(expected)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_packs_is_unpacked(form: int, source: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form, compresslevel=1) as tar:
        tar.add(source, arcname=".")
    unpack(buffer.getvalue(), tmp_path / "tree")
    assert snapshot(tmp_path / "tree", times=False) == snapshot(source, times=False)


def test_what_git_archives_is_unpacked_with_its_global_header(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have the git program")
        pytest.skip("the git program is missing")
    work = tmp_path / "work"
    git = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", work], check=True)
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    command = [*git, "archive", "--format=tar.gz", "--prefix=app/", "HEAD"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    unpack(data, tmp_path / "tree", strip=1)
    assert (tmp_path / "tree/run").read_text() == "#!/bin/sh\n"
    assert os.access(tmp_path / "tree/run", os.X_OK)


@pytest.mark.parametrize("engine", ["found", "zlib"])
def test_gzip_of_several_members_is_one_stream(
    engine: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_gnu_tar()
    if engine == "zlib":
        monkeypatch.setattr(inflate, "_make", zlib.decompressobj)
    data = packed(source, ".")
    cut = [0, 1, 700, 100_000, len(data)]
    parts = [gzip.compress(data[start:end]) for start, end in pairwise(cut)]
    unpack(b"".join([*parts[:2], gzip.compress(b""), *parts[2:]]), tmp_path / "tree", step=777)
    assert snapshot(tmp_path / "tree", times=False) == snapshot(source, times=False)


def test_modes_are_normalised_whatever_the_archive_and_the_umask_say(tmp_path: Path) -> None:
    data = (
        Tar()
        .directory("closed", mode=0o000)
        .directory("shared", mode=0o2777)
        .directory("sticky", mode=0o1777)
        .file("closed/secret", mode=0o600)
        .file("closed/open", mode=0o666)
        .file("run", mode=0o700)
        .file("group-only", mode=0o674)
        .end()
    )
    modes = {}
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            (tmp_path / "any").mkdir(exist_ok=True)
            unpack(data, tmp_path / f"tree-{umask}")
        finally:
            os.umask(before)
        tree = tmp_path / f"tree-{umask}"
        modes[umask] = {p.name: oct(p.stat().st_mode & 0o7777) for p in [tree, *sorted(tree.rglob("*"))]}
        assert modes[umask].pop(tree.name) == "0o755"
    assert modes[0o022] == {
        "closed": "0o755", "shared": "0o755", "sticky": "0o755", "secret": "0o644",
        "open": "0o644", "run": "0o755", "group-only": "0o644",
    }  # fmt: skip
    assert modes[0o077] == modes[0o022]


def test_files_belong_to_the_agent_and_keep_their_time(tmp_path: Path) -> None:
    data = (
        Tar()
        .pax(records(mtime="1700000000.123456789", uid="12345", gid="12345", SCHILY__xattr__user__x="y"))
        .file("new")
        .raw(header("old", mtime=b"\xff" * 12))
        .raw(header("odd", mtime=base256(1 << 60, 12)))
        .end()
    )
    unpack(data, tmp_path / "tree")
    info = (tmp_path / "tree/new").stat()
    assert (info.st_uid, info.st_gid, info.st_mtime_ns) == (os.getuid(), os.getgid(), 1700000000123456789)
    assert (tmp_path / "tree/old").stat().st_mtime == 0
    assert (tmp_path / "tree/odd").stat().st_mtime > 2**33


def test_a_pax_size_overrides_the_header_that_cannot_hold_it(tmp_path: Path) -> None:
    content = b"not in the header"
    data = Tar().pax(records(size=str(len(content)))).raw(header("f", size=0) + padded(content)).end()
    unpack(data, tmp_path / "tree")
    assert (tmp_path / "tree/f").read_bytes() == content
    big = Tar().raw(header("f", size=base256(len(content), 12)) + padded(content)).end()
    unpack(big, tmp_path / "other")
    assert (tmp_path / "other/f").read_bytes() == content


def test_a_name_is_put_together_from_prefix_and_name(tmp_path: Path) -> None:
    data = (
        Tar().raw(header("name", prefix="a/prefix")).raw(header("gnu", prefix="x", magic=b"ustar  \0")).end()
    )
    unpack(data, tmp_path / "tree")
    assert (tmp_path / "tree/a/prefix/name").is_file()
    assert (tmp_path / "tree/gnu").is_file()  # GNU keeps other things there


def test_a_plain_file_becomes_the_apps_program(tmp_path: Path) -> None:
    for number, data in enumerate([b"x", b"#!/bin/sh\n", b"\x7fELF" + os.urandom(100_000)]):
        unpack(data, tmp_path / f"tree-{number}", target="bin/web", step=100)
        program = tmp_path / f"tree-{number}/bin/web"
        assert program.read_bytes() == data
        assert program.stat().st_mode & 0o7777 == 0o755


def test_archive_none_places_any_file_as_it_is(tmp_path: Path) -> None:
    data = gzip.compress(Tar().file("f").end())
    unpack(data, tmp_path / "tree", form=Form.PLAIN, target="share/data.tar.gz")
    assert (tmp_path / "tree/share/data.tar.gz").read_bytes() == data


def test_links_that_stay_inside_are_made_as_they_are(tmp_path: Path) -> None:
    data = (
        Tar()
        .symlink("a/b/up", "../../x/y")
        .symlink("a/b/root", "../..")
        .symlink("through", "a/b/root/a/b/up")
        .symlink("here", ".")
        .file("x/y")
        .end()
    )
    unpack(data, tmp_path / "tree")
    assert (tmp_path / "tree/through").read_bytes() == b"content"
    assert os.readlink(tmp_path / "tree/a/b/root") == "../.."
