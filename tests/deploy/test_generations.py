"""Config generations: written whole, compared with what was written, and put right file by file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.deploy.generations import Seen, drifted, repair_generation, stat_key, write_generation
from agent.domain.spec import AppSpec, ManagedFile
from tests.kit.kill_points import killed_before_each_change

FILES = (
    ManagedFile(target="etc/a.conf", content=b"a = 1\n"),
    ManagedFile(target="etc/deep/b.conf", content=b"b = 2\n", mode=0o600),
    ManagedFile(target="c", content=b""),
)
SPEC = AppSpec(name="web", version="1", files=FILES)


def generation(base: Path) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    path = write_generation(base, SPEC, None)
    assert path is not None
    return path


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(path)): (file.stat().st_mode & 0o777, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


WRITTEN = {file.target: (file.mode, file.content) for file in FILES}


def _to_link(path: Path) -> None:
    (path / "etc").rename(path.parent.parent / "elsewhere")
    (path / "etc").symlink_to(path.parent.parent / "elsewhere")


def _to_fifo(path: Path) -> None:
    (path / "c").unlink()
    os.mkfifo(path / "c")


def _to_file_link(path: Path) -> None:
    (path / "c").unlink()
    (path / "c").symlink_to("/etc/hostname")


def _to_directory(path: Path) -> None:
    (path / "c").unlink()
    (path / "c/d").mkdir(parents=True)


def _to_file(path: Path) -> None:
    shutil.rmtree(path / "etc")
    (path / "etc").write_text("x")


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "another content": (lambda g: (g / "etc/a.conf").write_bytes(b"a = 2\n"), ["etc/a.conf"]),
    "more content": (lambda g: (g / "c").write_bytes(b"x"), ["c"]),
    "another mode": (lambda g: (g / "etc/deep/b.conf").chmod(0o644), ["etc/deep/b.conf"]),
    "a file gone": (lambda g: (g / "etc/a.conf").unlink(), ["etc/a.conf"]),
    "a directory gone": (lambda g: shutil.rmtree(g / "etc"), ["etc/a.conf", "etc/deep/b.conf"]),
    "all gone": (shutil.rmtree, [file.target for file in FILES]),
    "a file more": (lambda g: (g / "etc/x.conf").write_text("x"), ["etc/x.conf"]),
    "a directory more": (lambda g: (g / "etc/deep/x/y").mkdir(parents=True), ["etc/deep/x"]),
    "a link instead of a file": (_to_file_link, ["c"]),
    "a link instead of a directory": (_to_link, ["etc/a.conf", "etc/deep/b.conf"]),
    "a directory instead of a file": (_to_directory, ["c"]),
    "a file instead of a directory": (_to_file, ["etc/a.conf", "etc/deep/b.conf"]),
    "a FIFO instead of a file": (_to_fifo, ["c"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_was_changed_is_named_and_put_right(damage: str, tmp_path: Path) -> None:
    path = generation(tmp_path / "generations")
    assert drifted(path, FILES, None) == []
    change, expected = DAMAGE[damage]
    change(path)
    assert drifted(path, FILES, None) == expected
    assert repair_generation(path, FILES, None) == expected
    assert tree(path) == WRITTEN
    assert drifted(path, FILES, None) == []
    if (elsewhere := tmp_path / "elsewhere").exists():  # what a link led to is nobody's to change
        assert sorted(os.listdir(elsewhere)) == ["a.conf", "deep"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs the rights of root")
def test_another_owner_is_seen_and_put_right(tmp_path: Path) -> None:
    base = tmp_path / "generations"
    base.mkdir()
    path = write_generation(base, SPEC, (65534, 65534))
    assert path is not None
    os.chown(path / "c", 0, 0)
    assert repair_generation(path, FILES, (65534, 65534)) == ["c"]
    assert (path / "c").stat().st_uid == 65534


def test_a_generation_killed_at_any_moment_is_absent_or_whole(tmp_path: Path) -> None:
    bases: list[Path] = []
    for changes in killed_before_each_change(
        lambda: generation(bases[-1]), lambda: bases.append(tmp_path / str(len(bases)))
    ):
        named = [p for p in bases[-1].iterdir() if p.name[0] != "."] if bases[-1].exists() else []
        assert all(tree(path) == WRITTEN for path in named), changes
        assert tree(generation(bases[-1])) == WRITTEN


def test_a_repair_killed_at_any_moment_leaves_each_file_as_it_was_or_as_it_should_be(tmp_path: Path) -> None:
    paths: list[Path] = []

    def before() -> None:
        paths.append(path := generation(tmp_path / str(len(paths))))
        (path / "etc/a.conf").write_bytes(b"by hand\n")
        (path / "c").chmod(0o777)

    for changes in killed_before_each_change(lambda: repair_generation(paths[-1], FILES, None), before):
        assert (paths[-1] / "etc/a.conf").read_bytes() in (b"by hand\n", b"a = 1\n"), changes
        repair_generation(paths[-1], FILES, None)
        assert tree(paths[-1]) == WRITTEN
        assert drifted(paths[-1], FILES, None) == []


def test_a_file_nobody_touched_is_not_read_again_and_one_that_was_is(tmp_path: Path) -> None:
    path, seen = generation(tmp_path / "generations"), Seen()
    assert drifted(path, FILES, None, seen) == []
    old = (path / "c").stat()
    seen[path / "c"] = stat_key(old)
    other = (*FILES[:2], ManagedFile(target="c", content=b"another"))
    assert drifted(path, other, None, seen) == []  # remembered as right
    (path / "c").write_bytes(b"x")
    os.utime(path / "c", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert drifted(path, FILES, None, seen) == ["c"]
