"""Credentials, and real servers in trouble."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded, Transient
from agent.source.git.remote import GitRemote
from tests.kit.git_server import Forge, Repository
from tests.kit.hostile_git import failure


@pytest.fixture
async def guarded(forge: Forge, state: Repository) -> Repository:
    await state.put({"a": "1"})
    forge.logins = {"ada": "first", "x-access-token": "token-1"}
    return state


async def test_credentials_from_a_file_are_read_again_on_each_use(
    forge: Forge, guarded: Repository, tmp_path: Path
) -> None:
    login = tmp_path / "login"
    login.write_text("ada:first\n")
    async with GitRemote(guarded.url, credentials=login) as remote:
        await remote.ls_ref("main")
        forge.logins = {"ada": "second"}
        refused = await failure(remote)
        assert (type(refused), refused.reason) == (OperatorNeeded, "GitAuth")
        assert str(login) in refused.info.remedy
        assert "first" not in str(refused)
        login.write_text("ada:second\n")
        await remote.ls_ref("main")


async def test_a_bare_token_is_enough(guarded: Repository, tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text("token-1\n")
    async with GitRemote(guarded.url, credentials=login) as remote:
        with await remote.resolve("main", None) as snapshot:
            assert snapshot.read("a") == b"1"


async def test_credentials_in_the_url_work_and_are_never_shown(guarded: Repository) -> None:
    for password, works in (("first", True), ("hunter2", False)):
        url = guarded.url.replace("http://", f"http://ada:{password}@")
        async with GitRemote(url) as remote:
            assert password not in remote.where
            if works:
                await remote.ls_ref("main")
            else:
                refused = await failure(remote)
                assert refused.reason == "GitAuth"
                assert password not in str(refused) + repr(refused.info)


async def test_no_credentials_where_some_are_needed_says_what_to_do(guarded: Repository) -> None:
    async with GitRemote(guarded.url) as remote:
        refused = await failure(remote)
    assert refused.reason == "GitAuth"
    assert "--credentials-file" in refused.info.remedy


# --- a server in trouble -------------------------------------------------------------------------


async def test_a_repository_that_is_not_there_needs_an_operator(forge: Forge) -> None:
    async with GitRemote(f"{forge.url}/nothing.git") as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (OperatorNeeded, "RepositoryNotFound")
    assert refused.info.where == f"{forge.url}/nothing.git"


async def test_a_server_that_is_away_is_transient_and_found_again(forge: Forge, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        assert await remote.ls_ref("main") == commit
        await forge.stop()
        away = await failure(remote)
        assert (type(away), away.reason) == (Transient, "GitUnavailable")
        assert "refused" in str(away)
        await forge.start()
        assert await remote.ls_ref("main") == commit


async def test_a_repository_replaced_by_one_of_another_kind_is_understood_at_the_next_poll(
    forge: Forge, state: Repository, tmp_path: Path
) -> None:
    await state.put({"a": "1"})
    other = await forge.repository("other.git", object_format="sha256")
    commit = await other.put({"a": "2"})
    async with GitRemote(state.url) as remote:
        await remote.ls_ref("main")
        state.path.rename(tmp_path / "old")
        assert (await failure(remote)).reason == "RepositoryNotFound"
        other.path.rename(state.path)
        assert await remote.ls_ref("main") == commit
        with await remote.resolve("main", commit) as snapshot:
            assert snapshot.read("a") == b"2"


async def test_a_connection_the_server_dropped_is_replaced_silently(forge: Forge, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(state.url) as remote:
        assert await remote.ls_ref("main") == commit
        assert forge.drop_connections() > 0
        assert await remote.ls_ref("main") == commit
        assert len(forge.connections) == 2


async def test_nothing_is_left_open_at_the_end(forge: Forge, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    before = set(os.listdir("/proc/self/fd"))
    async with GitRemote(state.url) as remote:
        (await remote.resolve("main", commit)).close()
        await remote.earlier(commit, 3)
    async with asyncio.timeout(5):
        while len(os.listdir("/proc/self/fd")) > len(before):
            await asyncio.sleep(0.01)
