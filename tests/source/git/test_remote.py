"""The client against the real `git http-backend`."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from aiohttp import web

from agent.cli.demo.git_server import git
from agent.domain.errors import Failure, Permanent, Transient
from agent.source.git.remote import GitRemote
from tests.kit.git_server import Executable, Forge, Link, Repository

INFO = "GET /state.git/info/refs?service=git-upload-pack"
ASK = "POST /state.git/git-upload-pack"


async def failure(remote: GitRemote, ref: str = "main") -> Failure:
    with pytest.raises(Failure) as caught:
        await remote.ls_ref(ref)
    return caught.value


async def test_a_commit_comes_out_as_it_was_pushed(forge: Forge, state: Repository, tmp_path: Path) -> None:
    commit = await state.commit(
        {
            "state.yaml": "schema: 1\n",
            "bin/run": Executable("#!/bin/sh\n"),
            "conf/current": Link("../state.yaml"),
            "ümlaut/ space": b"\0\xff",
            "empty": "",
        },
        "First words\n\nand more",
    )
    await state.push()
    async with GitRemote(state.url) as remote:
        with await remote.fetch(commit) as snapshot:
            await snapshot.export(tmp_path / "out")
            assert snapshot.read("bin/run") == b"#!/bin/sh\n"
            assert snapshot.read("conf/current") is None
            assert snapshot.read("bin") is None
            assert snapshot.read("nowhere/at/all") is None
    assert (snapshot.commit, snapshot.parents) == (commit, ())
    assert (snapshot.author, snapshot.subject) == ("Ada Author", "First words")
    assert snapshot.time == 1_700_000_001
    assert (tmp_path / "out/conf/current").read_text() == "schema: 1\n"
    assert os.readlink(tmp_path / "out/conf/current") == "../state.yaml"
    assert (tmp_path / "out/ümlaut/ space").read_bytes() == b"\0\xff"
    assert stat.S_IMODE((tmp_path / "out/bin/run").stat().st_mode) == 0o755
    assert (tmp_path / "out/empty").read_bytes() == b""
    assert not (tmp_path / "out/.git").exists()


async def test_a_poll_is_one_request_on_the_connection_that_is_kept(forge: Forge, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        assert await remote.ls_ref("main") == commit
        assert forge.requests == [INFO, ASK]
        for _ in range(5):
            assert await remote.ls_ref("main") == commit
        assert forge.requests == [INFO, *[ASK] * 6]
        assert len(forge.connections) == 1
        newer = await state.put({"a": "2"})
        assert await remote.ls_ref("main") == newer


async def test_refs_are_read_in_the_documented_order(forge: Forge, state: Repository) -> None:
    first = await state.put({"a": "1"})
    await state.git("tag", "light")
    await state.git("tag", "-a", "-m", "words", "v1")
    await state.git("tag", "both")
    await state.git("tag", "-a", "-m", "of a tag", "v1-of-v1", "v1")
    second = await state.put({"a": "2"})
    await state.git("branch", "both")
    await state.git("branch", "feature/x", first)
    await state.git("branch", "main-two", first)
    await state.publish("--all")
    await state.publish("--tags")
    async with GitRemote(state.url) as remote:
        for ref, commit in {
            "HEAD": second,
            "main": second,
            "refs/heads/main": second,
            "feature/x": first,
            "light": first,
            "v1": first,
            "v1-of-v1": first,
            "refs/tags/v1": first,
            "both": second,
            "refs/tags/both": first,
        }.items():
            assert await remote.ls_ref(ref) == commit, ref
        for ref in ("mai", "main/", "feature", "refs/heads/mai", "V1", "refs/heads"):
            caught = await failure(remote, ref)
            assert caught.reason in ("RefNotFound", "RefInvalid"), ref


async def test_a_full_commit_id_needs_no_request_to_be_resolved(forge: Forge, state: Repository) -> None:
    first = await state.put({"a": "1"})
    await state.put({"a": "2"})
    async with GitRemote(state.url) as remote:
        assert await remote.ls_ref(first.upper()) == first
        assert forge.requests == []
        with await remote.resolve(first, None) as snapshot:
            assert snapshot.read("a") == b"1"


async def test_the_tag_object_itself_may_be_fetched(state: Repository) -> None:
    commit = await state.put({"a": "1"})
    await state.git("tag", "-a", "-m", "words", "v1")
    await state.publish("v1")
    tag = await state.git("rev-parse", "v1")
    assert tag != commit
    async with GitRemote(state.url) as remote:
        with await remote.fetch(tag) as snapshot:
            assert snapshot.commit == commit
        with await remote.resolve("v1", tag) as snapshot:
            assert snapshot.commit == commit


async def test_the_announced_commit_costs_two_requests_side_by_side(forge: Forge, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        await remote.ls_ref("main")
        del forge.requests[:]
        with await remote.resolve("main", commit) as snapshot:
            assert snapshot.read("a") == b"1"
        assert forge.requests == [ASK, ASK]


async def test_an_announced_commit_is_used_only_if_the_ref_points_to_it(state: Repository) -> None:
    old = await state.put({"a": "old"})
    new = await state.put({"a": "new"})
    async with GitRemote(state.url) as remote:
        for announced in (old, "f" * 40, "0" * 40, "nonsense", "", "a" * 64, None):
            with await remote.resolve("main", announced) as snapshot:
                assert (snapshot.commit, snapshot.read("a")) == (new, b"new"), announced


async def test_a_ref_that_is_not_there_fails_whatever_was_announced(state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        with pytest.raises(Transient) as caught:
            await remote.resolve("gone", commit)
        assert caught.value.reason == "RefNotFound"


async def test_an_empty_repository_has_no_ref_yet(state: Repository) -> None:
    async with GitRemote(state.url) as remote:
        for ref in ("HEAD", "main"):
            assert (await failure(remote, ref)).reason == "RefNotFound"
        commit = await state.put({"a": "1"})
        assert await remote.ls_ref("HEAD") == commit


async def test_earlier_commits_follow_the_first_parents(forge: Forge, state: Repository) -> None:
    commits = [await state.put({"a": str(n)}) for n in range(4)]
    await state.git("checkout", "-q", "-b", "side", commits[0])
    await state.commit({"b": "side"})
    await state.git("checkout", "-q", "main")
    await state.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    await state.publish()
    merge = await state.git("rev-parse", "HEAD")
    async with GitRemote(state.url) as remote:
        assert await remote.earlier(merge, 3) == [commits[3], commits[2], commits[1]]
        assert await remote.earlier(merge, 100) == commits[::-1]
        assert await remote.earlier(commits[0], 3) == []
        with await remote.fetch(merge, depth=2) as snapshot:
            assert snapshot.log(10) == [merge, commits[3]]
            assert len(snapshot.parents) == 2


async def test_history_without_trees_is_asked_of_servers_that_can(forge: Forge, state: Repository) -> None:
    await state.put({"big": os.urandom(100_000)})
    commit = await state.put({"big": os.urandom(100_000)})
    await git("config", "uploadpack.allowFilter", "true", directory=state.path)
    async with GitRemote(state.url) as remote:
        assert len(await remote.earlier(commit, 5)) == 1
        objects = await remote._repository.take(commit, depth=5, trees=False)
        assert len(objects) == 2  # type: ignore[arg-type]
        objects.close()


async def test_sha256_repositories_are_followed(forge: Forge, tmp_path: Path) -> None:
    state = await forge.repository("new.git", object_format="sha256")
    commit = await state.put({"a": "1", "d/b": "2"})
    async with GitRemote(state.url) as remote:
        assert await remote.ls_ref("main") == commit
        with await remote.resolve("main", commit) as snapshot:
            await snapshot.export(tmp_path / "out")
        assert (tmp_path / "out/d/b").read_text() == "2"
        with await remote.resolve("main", "a" * 40) as snapshot:
            assert snapshot.commit == commit


async def test_a_commit_that_is_not_there_is_told(state: Repository) -> None:
    await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        for commit in ("f" * 40, "f" * 64, "short", "HEAD\n"):
            with pytest.raises(Transient) as caught:
                await remote.fetch(commit)
            assert caught.value.reason == "CommitNotFound"


async def test_what_is_not_a_commit_is_refused(state: Repository) -> None:
    await state.put({"a": "1"})
    blob = await state.git("rev-parse", "HEAD:a")
    await state.git("tag", "blob", blob)
    await state.publish("blob")
    async with GitRemote(state.url) as remote:
        with pytest.raises(Permanent) as caught:
            await remote.resolve("blob", None)
        assert caught.value.reason == "NotACommit"


async def test_submodules_and_lfs_pointers_are_refused_from_real_repositories(
    state: Repository, tmp_path: Path
) -> None:
    commit = await state.commit({"a": "1"})
    await state.git("update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/lib")
    await state.git("commit", "-q", "-m", "a submodule")
    await state.publish()
    async with GitRemote(state.url) as remote:
        with await remote.resolve("main", None) as snapshot:
            with pytest.raises(Permanent, match="vendor/lib: a submodule"):
                await snapshot.export(tmp_path / "out")
        await state.git("rm", "-q", "--cached", "vendor/lib")
        await state.put({"big": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
        with await remote.resolve("main", None) as snapshot:
            with pytest.raises(Permanent, match="big: a Git LFS pointer"):
                await snapshot.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_five_thousand_files_come_out_whole(state: Repository, tmp_path: Path) -> None:
    files = {f"d{n % 40}/e{n % 7}/f{n}": f"content {n}\n" * (n % 20) for n in range(5000)}
    commit = await state.commit(files)
    await state.push()
    async with GitRemote(state.url) as remote:
        with await remote.fetch(commit) as snapshot:
            await snapshot.export(tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")): p.read_text() for p in (tmp_path / "out").rglob("f*")}
    assert found == files


async def test_a_pack_too_large_for_memory_goes_through_a_file_and_leaves_none(
    state: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.source.git.spool.MEMORY_MAX", 100_000)
    content = {f"f{n}": os.urandom(300_000) for n in range(5)}
    commit = await state.put(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    async with GitRemote(state.url, scratch=scratch) as remote:
        with await remote.fetch(commit) as snapshot:
            await snapshot.export(tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == content
    assert list(scratch.iterdir()) == []


async def test_cancelling_an_export_leaves_nothing(state: Repository, tmp_path: Path) -> None:
    commit = await state.put({f"d{n % 30}/f{n}": "x" for n in range(600)})
    async with GitRemote(state.url) as remote:
        with await remote.fetch(commit) as snapshot:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(snapshot.export(tmp_path / "out"))
                while not (tmp_path / "out").exists() and not task.done():
                    await asyncio.sleep(0)
                task.cancel()
            assert not (tmp_path / "out").exists() or (task.done() and not task.cancelled())


class OldForge(Forge):
    """A server that never heard of protocol versions."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers.copy()
        headers.pop("Git-Protocol", None)
        return await super().handle(request.clone(headers=headers))


async def test_an_old_server_is_spoken_to_in_version_0(tmp_path: Path) -> None:
    async with OldForge(tmp_path / "old") as forge:
        state = await forge.repository()
        first = await state.put({"a": "1"})
        second = await state.put({"a": "2"})
        async with GitRemote(state.url) as remote:
            assert await remote.ls_ref("HEAD") == second
            with await remote.resolve("main", second) as snapshot:
                assert snapshot.read("a") == b"2"
            assert await remote.earlier(second, 5) == [first]
