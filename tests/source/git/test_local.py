"""file:// repositories, made by the git program, read in place."""

from __future__ import annotations

import asyncio
import os
import zlib
from pathlib import Path

import pytest

from agent.cli.demo.git_server import git
from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.source.git.remote import GitRemote
from tests.kit.git_server import Executable, Forge, Link, Repository


def at(path: Path) -> GitRemote:
    return GitRemote(path.as_uri())


async def failure(remote: GitRemote, ref: str = "main") -> Failure:
    with pytest.raises(Failure) as caught:
        await remote.ls_ref(ref)
    return caught.value


async def test_a_bare_repository_and_a_work_tree_are_followed_alike(
    state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1", "d/run": Executable("x"), "l": Link("d/run")}, "Words")
    for path in (state.path, state.work):
        async with at(path) as remote:
            assert await remote.ls_ref("HEAD") == commit
            with await remote.resolve("main", commit) as snapshot:
                out = tmp_path / path.parent.name
                await snapshot.export(out)
                assert (snapshot.commit, snapshot.subject) == (commit, "Words")
            assert os.access(out / "d/run", os.X_OK)
            assert os.readlink(out / "l") == "d/run"


async def test_uncommitted_changes_do_not_matter(state: Repository) -> None:
    await state.put({"a": "committed"})
    (state.work / "a").write_text("edited")
    async with at(state.work) as remote:
        with await remote.resolve("main", None) as snapshot:
            assert snapshot.read("a") == b"committed"


async def test_refs_loose_and_packed_tags_and_ids(state: Repository) -> None:
    first = await state.put({"a": "1"})
    await state.git("tag", "-a", "-m", "words", "v1")
    await state.git("tag", "both")
    second = await state.put({"a": "2"})
    await state.git("branch", "both")
    await state.publish("--all")
    await state.publish("--tags")
    async with at(state.path) as remote:
        for packed in (False, True):
            if packed:
                await git("pack-refs", "--all", directory=state.path)
                await git("repack", "-a", "-d", "-q", directory=state.path)
            wanted = {"HEAD": second, "main": second, "v1": first, "both": second, "refs/tags/both": first}
            for ref, commit in wanted.items():
                assert await remote.ls_ref(ref) == commit, (ref, packed)
            assert await remote.ls_ref(first) == first
            for ref in ("mai", "gone", "refs/heads", "main.lock", ".x"):
                assert (await failure(remote, ref)).reason == "RefNotFound", ref


async def test_an_announced_commit_is_used_only_if_the_ref_points_to_it(state: Repository) -> None:
    old, new = await state.put({"a": "1"}), await state.put({"a": "2"})
    async with at(state.path) as remote:
        for announced in (new, old, "f" * 40, None):
            with await remote.resolve("main", announced) as snapshot:
                assert snapshot.commit == new


async def test_earlier_commits_come_from_the_history_that_is_there(state: Repository, tmp_path: Path) -> None:
    commits = [await state.put({"a": str(n)}) for n in range(5)]
    async with at(state.path) as remote:
        assert await remote.earlier(commits[4], 2) == [commits[3], commits[2]]
        assert await remote.earlier(commits[4], 50) == commits[3::-1]
    await git("clone", "-q", "--depth=2", state.path.as_uri(), str(tmp_path / "shallow"))
    async with at(tmp_path / "shallow") as remote:
        assert await remote.earlier(commits[4], 50) == [commits[3]]


async def test_a_repository_repacked_while_it_is_read_gives_all_files(
    state: Repository, tmp_path: Path
) -> None:
    files = {f"d{n % 9}/f{n}": f"content {n}" for n in range(200)}
    await state.put(files)
    await git("repack", "-a", "-d", "-q", directory=state.path)
    async with at(state.path) as remote:
        with await remote.resolve("main", None) as snapshot:
            assert snapshot.read("d0/f0") == b"content 0"
            await state.put({"more": "files"})
            await git("repack", "-a", "-d", "-q", directory=state.path)
            await snapshot.export(tmp_path / "out")
    assert sum(len(names) for _, _, names in os.walk(tmp_path / "out")) == len(files)


async def test_sha256_repositories_are_followed(forge: Forge) -> None:
    state = await forge.repository("new.git", object_format="sha256")
    commit = await state.put({"a": "1"})
    async with at(state.path) as remote:
        with await remote.resolve("main", None) as snapshot:
            assert (snapshot.commit, snapshot.read("a")) == (commit, b"1")


async def test_what_is_not_there_or_no_repository_needs_an_operator(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "file"):
        async with at(path) as remote:
            caught = await failure(remote)
        assert (type(caught), caught.reason) == (OperatorNeeded, "RepositoryNotFound")


async def test_a_format_we_do_not_know_is_refused(state: Repository) -> None:
    await state.put({"a": "1"})
    await git("config", "core.repositoryformatversion", "1", directory=state.path)
    await git("config", "extensions.partialClone", "origin", directory=state.path)
    async with at(state.path) as remote:
        assert (await failure(remote)).reason == "GitServerUnsupported"


async def test_damaged_objects_are_found_before_their_content_is_believed(
    state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "honest"})
    blob = await state.git("rev-parse", "HEAD:a")
    path = state.path / "objects" / blob[:2] / blob[2:]
    for damage in (zlib.compress(b"blob 6\0forged"), b"not deflated", b""):
        path.chmod(0o644)
        path.write_bytes(damage)
        async with at(state.path) as remote:
            with await remote.fetch(commit) as snapshot, pytest.raises(Transient) as caught:
                await snapshot.export(tmp_path / "out")
        assert caught.value.reason == "GitProtocol"
        assert not (tmp_path / "out").exists()


async def test_an_empty_repository_and_a_missing_commit_are_transient(state: Repository) -> None:
    async with at(state.path) as remote:
        assert (await failure(remote, "HEAD")).reason == "RefNotFound"
        with pytest.raises(Transient) as caught:
            await remote.fetch("f" * 40)
        assert caught.value.reason == "CommitNotFound"


async def test_nothing_is_left_open_when_a_fetch_is_cancelled(state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with at(state.path) as remote:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(remote.fetch(commit))
                await asyncio.sleep(0)
                task.cancel()
            if not task.cancelled():
                task.result().close()
        async with asyncio.timeout(5):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.01)
