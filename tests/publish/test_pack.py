"""What is packed is a function of names and contents alone, and our unpacker makes the same tree of it."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.cli.exit_codes import FAILED, OK
from agent.publish import pack as packing
from agent.publish.compressors import KNOWN
from agent.publish.pack import pack
from agent.publish.trouble import Trouble
from tests.artifact.test_good_archives import need_gnu_tar
from tests.artifact.trees import Entry, snapshot, unpack
from tests.cli.stage import run_here

ENDINGS = [ending for compressor in KNOWN for ending in compressor.endings]

# A directory is a mapping, a file its bytes and whether it may be executed, a link a text.
Content = dict[bytes, "Content"] | tuple[bytes, bool] | str
NAMES = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"a.b", b"A", b"a b", b"-", b"\xff\xfe", "größe".encode(), b"new\nline", b"x" * 255]
    ),
    st.binary(min_size=1, max_size=130).filter(lambda n: n not in (b".", b"..") and not {0, 47} & set(n)),
)
FILES = st.tuples(st.binary(max_size=1500), st.booleans())
LINKS = st.sampled_from(["nowhere", "no/where", "./nowhere", "nowhere/" * 20, "nirgends-größer"])
TREES: st.SearchStrategy[Content] = st.recursive(
    st.one_of(FILES, LINKS), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
ROOTS = st.dictionaries(NAMES, TREES, min_size=1, max_size=5)
QUICK = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def make(root: bytes, content: dict[bytes, Content], order: random.Random, masks: int) -> None:
    """Make the tree as one machine or another would: in some order, with some permissions, at some time."""
    os.makedirs(root, exist_ok=True)
    for name in order.sample(sorted(content), len(content)):
        path, what = os.path.join(root, name), content[name]
        if isinstance(what, dict):
            make(path, what, order, masks)
        elif isinstance(what, str):
            os.symlink(what, path)
        else:
            Path(os.fsdecode(path)).write_bytes(what[0])
            os.chmod(path, (0o755 if what[1] else 0o644) & ~masks | 0o400)
            os.utime(path, (order.randrange(2**33), order.randrange(2**33)))


def expected(content: dict[bytes, Content], prefix: bytes = b"") -> dict[bytes, Entry]:
    """What `snapshot` should find, without times."""
    found: dict[bytes, Entry] = {}
    for name, what in content.items():
        path = prefix + name
        if isinstance(what, dict):
            found |= {path: ("directory", "0o755"), **expected(what, path + b"/")}
        elif isinstance(what, str):
            found[path] = ("link", os.fsencode(what))
        else:
            found[path] = ("file", "0o755" if what[1] else "0o644", what[0], 0, b"")
    return found


@QUICK
@given(content=ROOTS, seed=st.integers(0, 1000), ending=st.sampled_from(ENDINGS))
def test_packing_is_a_function_of_the_content_and_unpacking_its_inverse(
    content: dict[bytes, Content], seed: int, ending: str
) -> None:
    base = Path(tempfile.mkdtemp())
    try:
        digests = []
        for number, masks in enumerate((0o022, 0o077)):
            root = base / f"tree-{number}"
            make(os.fsencode(root), content, random.Random(seed + number), masks)
            digests.append(pack(root, base / f"{number}{ending}").sha256)
        data = (base / f"0{ending}").read_bytes()
        assert digests[0] == digests[1] == hashlib.sha256(data).hexdigest()
        unpack(data, base / "unpacked")
        assert snapshot(base / "unpacked", times=False) == expected(content)
        assert sorted(os.listdir(base)) == sorted(
            ["tree-0", "tree-1", f"0{ending}", f"1{ending}", "unpacked"]
        )
    finally:
        shutil.rmtree(base)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "dist"
    (root / "bin").mkdir(parents=True)
    (root / "bin/web").write_bytes(b"#!/bin/sh\necho 1.0\n")
    (root / "bin/web").chmod(0o755)
    (root / "share" / ("d" * 120)).mkdir(parents=True)
    (root / "share" / ("d" * 120) / "größe").write_text("ü")
    (root / "latest").symlink_to("bin/web")
    return root


def test_these_are_the_bytes_for_ever(tree: Path, tmp_path: Path) -> None:
    """A change here changes the digest of every release in the world: it must not happen by accident."""
    assert pack(tree, tmp_path / "a.tar").sha256 == GOLDEN
    assert (
        hashlib.sha256(bz2.decompress((pack(tree, tmp_path / "a.tar.bz2").path).read_bytes())).hexdigest()
        == GOLDEN
    )
    assert pack(tree, tmp_path / "a.tar.bz2").sha256 == GOLDEN_BZ2


GOLDEN = "8c47c41c6f063029349a5156efb1658098d8100c1f6687028c10d35353a1a268"
GOLDEN_BZ2 = "2b4c5d3b65211c5b2329a707dce5e7494e08708fd9492141546ac0732463f8ab"


def test_the_environment_of_the_process_has_no_say(tree: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-P", "-m", "agent", "pack", str(tree), "-o"]
    said = []
    for number, (umask, more) in enumerate(
        [(0o022, {"LC_ALL": "C.UTF-8"}), (0o077, {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7",
                                                 "SOURCE_DATE_EPOCH": "1", "PYTHONUTF8": "0"})]
    ):  # fmt: skip
        done = subprocess.run(
            [*program, str(tmp_path / f"{number}.tar")], env={**os.environ, **more}, umask=umask,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        said.append(done.stdout)
    assert said[0] == said[1] == f"sha256:{GOLDEN}\n"


def test_gnu_tar_reads_it_and_finds_the_same(tree: Path, tmp_path: Path) -> None:
    need_gnu_tar()
    packed = pack(tree, tmp_path / "a.tar")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", "--no-same-owner", "-xf", packed.path], check=True)
    unpack(packed.path.read_bytes(), tmp_path / "ours")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "ours")


def test_a_file_of_other_content_has_another_time_and_the_same_content_the_same(
    tree: Path, tmp_path: Path
) -> None:
    """Servers and interpreters go by size and time."""

    def times() -> tuple[float, float]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        unpack(pack(tree, tmp_path / "a.tar").path.read_bytes(), tmp_path / "out")
        names = (tmp_path / "out/bin/web", tmp_path / "out/share" / ("d" * 120) / "größe")
        return names[0].stat().st_mtime, names[1].stat().st_mtime

    before = times()
    (tree / "bin/web").write_bytes(b"#!/bin/sh\necho 2.0\n")
    after = times()
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert all(315_532_800 <= time < 1_400_000_000 for time in (*before, *after))


def test_one_file_becomes_an_archive_of_it(tree: Path, tmp_path: Path) -> None:
    packed = pack(tree / "bin/web", tmp_path / "web.tar.zst")
    unpack(packed.path.read_bytes(), tmp_path / "out")
    assert list(snapshot(tmp_path / "out", times=False)) == [b"web"]
    assert stat.S_IMODE((tmp_path / "out/web").stat().st_mode) == 0o755
    assert packed.depends_on.startswith("libzstd 1.")


def test_what_fits_a_pattern_is_left_out(tree: Path, tmp_path: Path) -> None:
    (tree / "bin/.git").mkdir()
    (tree / "bin/.git/config").touch()
    (tree / "bin/web.map").touch()
    (tree / "web.map").touch()
    packed = pack(tree, tmp_path / "a.tar", [".git", "bin/*.map", "share"])
    unpack(packed.path.read_bytes(), tmp_path / "out")
    assert sorted(snapshot(tmp_path / "out")) == [b"bin", b"bin/web", b"latest", b"web.map"]


def emptied(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: os.mkfifo(root / "pipe"), "'pipe' is neither a file"),
        (lambda root: (root / "bin/web").chmod(0o4755), "set-user-id"),
        (lambda root: (root / "up").symlink_to("../.."), "leads out of the tree"),
        (lambda root: (root / "up").symlink_to("/etc/passwd"), "absolute path"),
        (lambda root: (root / "/".join("d" * 70)).mkdir(parents=True), "deeper than 64"),
        (lambda root: emptied(root), "nothing to pack"),
    ],
)  # fmt: skip
def test_what_no_agent_would_unpack_is_not_packed(
    tree: Path, tmp_path: Path, spoil: object, words: str
) -> None:
    assert callable(spoil)
    spoil(tree)
    with pytest.raises(Trouble, match=words):
        pack(tree, tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["dist"]


def test_a_file_that_changes_meanwhile_is_told(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_WHOLE", 10)
    monkeypatch.setattr(packing, "_digest", lambda _: b"\0" * 32)
    with pytest.raises(Trouble, match="changed while it was packed"):
        pack(tree, tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["dist"]


def test_large_files_are_read_in_pieces_and_are_no_other_bytes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "noise").write_bytes(random.Random(1).randbytes(300_001))
    whole = pack(tree, tmp_path / "a.tar").sha256
    monkeypatch.setattr(packing, "_WHOLE", 1000)
    monkeypatch.setattr(packing, "_PIECE", 1 << 16)
    done: list[tuple[int, int]] = []
    assert pack(tree, tmp_path / "b.tar", tell=lambda *so_far: done.append(so_far)).sha256 == whole
    assert done[-1][0] == done[-1][1] > 300_000


def test_of_a_systems_root_links_lead_from_there_and_what_no_release_may_have_is_left_out(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    (root / "etc/alternatives").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/mawk").write_text("awk")
    (root / "usr/bin/mawk").chmod(0o4755)
    (root / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    (root / "etc/alternatives/awk").symlink_to("/usr/bin/mawk")
    (root / "top").symlink_to("/")
    os.mkfifo(root / "usr/initctl")
    with pytest.raises(Trouble):
        pack(root, tmp_path / "a.tar")
    pack(root, tmp_path / "a.tar", root=True)
    made = tmp_path / "made"
    unpack((tmp_path / "a.tar").read_bytes(), made)
    assert os.readlink(made / "usr/bin/awk") == "../../etc/alternatives/awk"
    assert (made / "usr/bin/awk").read_text() == "awk"
    assert (made / "top/usr/bin").is_dir()
    assert stat.S_IMODE((made / "usr/bin/mawk").stat().st_mode) == 0o755
    assert not (made / "usr/initctl").exists()


def test_the_command_prints_the_digest_and_writes_it_beside(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "web.tar"
    answer = run_here("pack", str(tree), "-o", str(target))
    assert (answer.code, answer.out) == (OK, f"sha256:{GOLDEN}\n")
    assert "6 entries" in answer.err
    assert (tmp_path / "web.tar.sha256").read_text() == f"{GOLDEN}  web.tar\n"
    subprocess.run(["sha256sum", "-c", "--quiet", "web.tar.sha256"], cwd=tmp_path, check=True)
    told = json.loads(run_here("pack", str(tree), "-o", str(target), "--json").out)
    assert (told["sha256"], told["size"], told["path"]) == (GOLDEN, target.stat().st_size, str(target))


def test_the_command_fails_in_words(tree: Path, tmp_path: Path) -> None:
    for target, words in {
        "web.txt": "end it with .tar",
        "no/web.tar": "No such file",
        "dist/x.tar": "outside",
    }.items():
        answer = run_here("pack", str(tree), "-o", str(tmp_path / target))
        assert (answer.code, answer.out) == (FAILED, "")
        assert words in answer.err
