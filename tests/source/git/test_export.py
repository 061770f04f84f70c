from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import OperatorNeeded, Permanent
from agent.source.git.export import ExportLimits, export_tree, is_plain
from agent.source.git.pktline import Garbled
from tests.kit.git_objects import BLOB, MemoryObjects


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


def export(objects: MemoryObjects, tree: str, to: Path, **limits: int) -> None:
    export_tree(objects, tree, to, threading.Event(), ExportLimits(**limits))


def refusal(objects: MemoryObjects, tree: str, to: Path, **limits: int) -> Permanent:
    with pytest.raises(Permanent) as caught:
        export(objects, tree, to, **limits)
    assert not to.exists()
    return caught.value


def test_files_modes_links_and_directories_come_out_right_whatever_the_umask(
    objects: MemoryObjects, tmp_path: Path
) -> None:
    plain, link = objects.add(BLOB, b"plain"), objects.add(BLOB, b"../run")
    inner = objects.tree(("100755", b"x", plain), ("120000", b"up", link))
    tree = objects.tree(("40000", b"dir", inner), ("100664", b"old", plain), ("100644", b"run", plain))
    before = os.umask(0o077)
    try:
        export(objects, tree, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {
        str(p.relative_to(tmp_path / "out")): stat.S_IMODE(p.lstat().st_mode)
        for p in (tmp_path / "out").rglob("*")
        if not p.is_symlink()
    }
    assert modes == {"dir": 0o755, "dir/x": 0o755, "old": 0o644, "run": 0o644}
    assert os.readlink(tmp_path / "out/dir/up") == "../run"
    assert (tmp_path / "out/dir/up").read_bytes() == b"plain"


def test_an_empty_tree_is_an_empty_directory(objects: MemoryObjects, tmp_path: Path) -> None:
    export(objects, objects.tree(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", [b"", b".", b"..", b".git", b".GIT", b"a/b", b"/etc", b"../x", b"x" * 256])
def test_names_that_are_not_plain_are_refused(objects: MemoryObjects, tmp_path: Path, name: bytes) -> None:
    blob = objects.add(BLOB, b"")
    for tree in (objects.tree(("100644", name, blob)), objects.tree(("40000", name, objects.tree()))):
        inner = objects.tree(("40000", b"sub", tree))
        assert refusal(objects, tree, tmp_path / "out").reason == "TreeRefused"
        assert refusal(objects, inner, tmp_path / "out").info.where == "sub/"


@given(st.binary(max_size=300))
def test_a_plain_name_stays_in_its_directory(name: bytes) -> None:
    if is_plain(name):
        assert os.path.basename(name) == name
        assert os.path.normpath(b"/a/" + name) == b"/a/" + name


@pytest.mark.parametrize(
    "target", [b"/etc/passwd", b"..", b"../x", b"a/../../x", b"a/../b", b"./../x", b"", b"a\0b", b"x" * 5000]
)
def test_links_that_could_lead_out_are_refused(objects: MemoryObjects, tmp_path: Path, target: bytes) -> None:
    tree = objects.tree(("120000", b"link", objects.add(BLOB, target)))
    assert refusal(objects, tree, tmp_path / "out").reason == "TreeRefused"


def test_a_link_through_a_link_cannot_lead_out(objects: MemoryObjects, tmp_path: Path) -> None:
    to_root = objects.tree(("120000", b"root", objects.add(BLOB, b"..")))
    sneaky = objects.add(BLOB, b"deep/root/../outside")  # looks inside to those who only count
    tree = objects.tree(("40000", b"deep", to_root), ("120000", b"sneaky", sneaky))
    assert "lead out" in str(refusal(objects, tree, tmp_path / "out"))


@pytest.mark.parametrize("target", [b"b", b"./b", b"sub/b", b"sub//b", b"missing"])
def test_links_inside_are_kept_as_they_are(objects: MemoryObjects, tmp_path: Path, target: bytes) -> None:
    export(objects, objects.tree(("120000", b"a", objects.add(BLOB, target))), tmp_path / "out")
    assert os.readlink(tmp_path / "out/a").encode() == target


names = st.sampled_from([b"a", b"b", b"c", b"..", b"."])


@given(
    st.recursive(
        st.lists(names, min_size=1, max_size=5).map(b"/".join),
        lambda inner: st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_links_are_accepted_none_resolves_outside(
    tmp_path_factory: pytest.TempPathFactory, shape: bytes | dict[bytes, object]
) -> None:
    objects = MemoryObjects()

    def build(node: object) -> tuple[str, str]:
        if isinstance(node, bytes):
            return "120000", objects.add(BLOB, node)
        assert isinstance(node, dict)
        return "40000", objects.tree(
            *((mode, name, oid) for name, (mode, oid) in ((n, build(c)) for n, c in sorted(node.items())))
        )

    if isinstance(shape, bytes):
        shape = {b"a": shape}
    root = tmp_path_factory.mktemp("links") / "out"
    try:
        export(objects, build(shape)[1], root)
    except Permanent:
        return
    for path in root.rglob("*"):
        assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def test_submodules_and_lfs_pointers_are_refused_with_their_path(
    objects: MemoryObjects, tmp_path: Path
) -> None:
    pointer = objects.add(BLOB, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    for mode, oid, word in (("160000", "a" * 40, "submodule"), ("100644", pointer, "LFS")):
        failure = refusal(
            objects, objects.tree(("40000", b"d", objects.tree((mode, b"x", oid)))), tmp_path / "o"
        )
        assert failure.reason == "TreeRefused"
        assert failure.info.where == "d/x"
        assert word in str(failure)
        assert failure.info.remedy


def test_a_name_listed_twice_is_refused(objects: MemoryObjects, tmp_path: Path) -> None:
    blob, link = objects.add(BLOB, b""), objects.add(BLOB, b"sub")
    inner = objects.tree(("100644", b"x", blob))
    for second in (("100644", b"a", blob), ("40000", b"a", inner), ("120000", b"a", link)):
        tree = objects.tree(("120000", b"a", link), second)
        assert "twice" in str(refusal(objects, tree, tmp_path / "out"))


def test_entries_bytes_and_levels_are_bounded(objects: MemoryObjects, tmp_path: Path) -> None:
    blob = objects.add(BLOB, b"x" * 100)
    flat = objects.tree(*(("100644", b"%d" % i, blob) for i in range(20)))
    assert refusal(objects, flat, tmp_path / "out", entries=19).reason == "TreeTooLarge"
    assert refusal(objects, flat, tmp_path / "out", bytes=1999).reason == "TreeTooLarge"
    export(objects, flat, tmp_path / "fits", entries=20, bytes=2000)
    deep = objects.tree()
    for _ in range(10):
        deep = objects.tree(("40000", b"d", deep))
    assert refusal(objects, deep, tmp_path / "out", depth=10).reason == "TreeTooLarge"
    export(objects, deep, tmp_path / "deep", depth=11)


def test_a_tree_bomb_of_shared_subtrees_is_bounded(objects: MemoryObjects, tmp_path: Path) -> None:
    tree = objects.tree(("100644", b"f", objects.add(BLOB, b"")))
    for _ in range(20):
        tree = objects.tree(*(("40000", b"%d" % i, tree) for i in range(10)))
    assert refusal(objects, tree, tmp_path / "out", entries=500).reason == "TreeTooLarge"


def test_an_unknown_mode_and_a_missing_object_leave_nothing(objects: MemoryObjects, tmp_path: Path) -> None:
    assert "mode" in str(refusal(objects, objects.tree(("100600", b"x", "a" * 40)), tmp_path / "out"))
    with pytest.raises(KeyError):
        export(objects, objects.tree(("100644", b"x", "a" * 40)), tmp_path / "out")
    with pytest.raises(Garbled):
        export(objects, objects.tree(("40000", b"x", objects.add(BLOB, b""))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_in_it_is_left_alone(objects: MemoryObjects, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(OperatorNeeded, match="not empty"):
        export(objects, objects.tree(), tmp_path)
    assert (tmp_path / "keep").read_text() == "mine"


def test_a_full_disk_says_so_and_leaves_nothing(
    objects: MemoryObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = objects.tree(("100644", b"x", objects.add(BLOB, b"content")))

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OperatorNeeded) as caught:
        export(objects, tree, tmp_path / "out")
    assert caught.value.reason == "DiskFull"
    assert not (tmp_path / "out").exists()


def test_export_stops_when_told_and_leaves_nothing(objects: MemoryObjects, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedError):
        export_tree(objects, objects.tree(("100644", b"x", objects.add(BLOB, b""))), tmp_path / "out", stop)
    assert not (tmp_path / "out").exists()
