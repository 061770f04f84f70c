"""A path of a commit as bytes: what it holds, and that they are the same everywhere."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from agent.domain.errors import Failure, Permanent
from agent.source.git import packing
from agent.source.git.remote import GitRemote
from tests.kit.git_server import Content, Executable, Link, Repository

FILES: dict[str, Content] = {
    "dist/bin/web": Executable("#!/bin/sh\n"),
    "dist/bin.d/a": "x" * 1000,
    "dist/current": Link("bin/web"),
    f"dist/{'long' * 40}/empty": "",
    "dist/caf\u00e9": "unicode",
    "other": "not packed",
}
DIGEST = "6ab0407efd71ccbb5dcbeaa108c52221eb7c39065cb9d608792245e3865257df"


async def packed(state: Repository, commit: str, path: str) -> bytes:
    async with GitRemote(state.url) as remote:
        with await remote.fetch(commit) as snapshot:
            return b"".join(snapshot.packed(path))


async def refusal(state: Repository, commit: str, path: str = "") -> Failure:
    with pytest.raises(Permanent) as caught:
        await packed(state, commit, path)
    return caught.value


async def test_a_directory_is_a_tar_whose_digest_never_changes(state: Repository) -> None:
    commit = await state.put(FILES)
    data = await packed(state, commit, "dist")
    assert hashlib.sha256(data).hexdigest() == DIGEST
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {m.name: (m.mode, m.mtime, m.uid, m.uname, m.linkname) for m in tar}
        program = tar.extractfile("bin/web")
        assert program is not None
        assert program.read() == b"#!/bin/sh\n"
    plain = (0o644, 0, 0, "", "")
    assert found == {
        "bin.d/a": plain,
        "bin/web": (0o755, 0, 0, "", ""),
        "caf\u00e9": plain,
        "current": (0o777, 0, 0, "", "bin/web"),
        f"{'long' * 40}/empty": plain,
    }
    assert len(data) % 10240 == 0
    later = await state.put({"other": "changed"})
    assert await packed(state, later, "dist") == data


async def test_a_file_is_packed_as_it_is_and_nothing_as_everything(state: Repository) -> None:
    commit = await state.put({"a/b": b"\0" * 700_000, "a/empty": ""})
    assert await packed(state, commit, "a/b") == b"\0" * 700_000
    assert await packed(state, commit, "a/empty") == b""
    with tarfile.open(fileobj=io.BytesIO(await packed(state, commit, ""))) as tar:
        assert tar.getnames() == ["a/b", "a/empty"]


@pytest.mark.parametrize("path", ["missing", "a/missing", "file/below", "A"])
async def test_a_path_that_the_commit_does_not_have_is_told(state: Repository, path: str) -> None:
    commit = await state.put({"a/x": "1", "file": "2"})
    failure = await refusal(state, commit, path)
    assert (failure.reason, path in str(failure)) == ("ArtifactNotFound", True)


async def test_what_no_directory_can_be_made_of_is_refused(state: Repository, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    commit = await state.put({"large": pointer, "link": Link("large")})
    assert "LFS" in str(await refusal(state, commit))
    assert "neither a file nor a directory" in str(await refusal(state, commit, "link"))
    await state.git("update-index", "--add", "--cacheinfo", f"160000,{commit},module")
    await state.git("commit", "-q", "-m", "a submodule")
    await state.git("rm", "-q", "--cached", "large")
    await state.git("commit", "-q", "-m", "no pointer")
    await state.publish()
    assert "submodule" in str(await refusal(state, await state.git("rev-parse", "HEAD")))


@pytest.mark.parametrize(
    ("bound", "words"),
    [("ENTRIES", "entries"), ("DEPTH", "levels"), ("BYTES", "bytes")],
)
async def test_a_directory_is_bounded(
    state: Repository, monkeypatch: pytest.MonkeyPatch, bound: str, words: str
) -> None:
    commit = await state.put({"a/b/c": "12345", "d": "6789", "e": ""})
    monkeypatch.setattr(packing, bound, 2)
    failure = await refusal(state, commit)
    assert (failure.reason, words in str(failure)) == ("TreeTooLarge", True)
