"""The Git server of the demo and the tests serves real git clients."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import aiohttp

from agent.cli.demo.git_server import NO_COMMIT, Pushed, git
from tests.kit.git_server import Forge


async def test_git_pushes_and_clones_and_each_changed_ref_is_heard_of(tmp_path: Path) -> None:
    heard: asyncio.Queue[Pushed] = asyncio.Queue()
    async with Forge(tmp_path, on_push=heard.put) as forge:
        state = await forge.repository()
        first = await state.commit({"a": "1"})
        await state.push()
        assert await heard.get() == Pushed("state.git", "refs/heads/main", NO_COMMIT, first)
        second = await state.commit({"a": os.urandom(2 << 20)})  # git sends this one in chunks
        await state.git("tag", "v1")
        await state.push("main", "v1")
        assert await heard.get() == Pushed("state.git", "refs/heads/main", first, second)
        assert await heard.get() == Pushed("state.git", "refs/tags/v1", NO_COMMIT, second)
        await state.push(":v1")
        assert await heard.get() == Pushed("state.git", "refs/tags/v1", second, NO_COMMIT)
        await state.push()
        await git("clone", "-q", state.url, str(tmp_path / "clone"))
        assert await git("rev-parse", "HEAD", directory=tmp_path / "clone") == second
        assert heard.empty()


async def test_a_push_without_a_login_is_refused(tmp_path: Path) -> None:
    async with Forge(tmp_path, logins={"ada": "pw"}) as forge:
        state = await forge.repository()
        await state.commit({"a": "1"})
        try:
            await state.push()
        except RuntimeError:
            pass
        else:
            raise AssertionError("the push was taken")
        await state.git("push", "-q", state.url.replace("http://", "http://ada:pw@"), "HEAD")


async def test_compressed_requests_are_understood(tmp_path: Path) -> None:
    async with Forge(tmp_path) as forge:
        state = await forge.repository()
        commit = await state.put({"a": "1"})
        body = gzip.compress(b"0014command=ls-refs\n00010009peel\n0000")
        headers = {
            "Content-Type": "application/x-git-upload-pack-request",
            "Content-Encoding": "gzip",
            "Git-Protocol": "version=2",
        }
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{state.url}/git-upload-pack", data=body, headers=headers) as response:
                assert response.status == 200
                assert commit.encode() in await response.read()


async def test_a_client_that_leaves_leaves_no_process(tmp_path: Path) -> None:
    def children() -> str:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    async with Forge(tmp_path) as forge:
        state = await forge.repository()
        await state.put({"a": "1"})
        before = children()
        host, port = forge.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /state.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\n"
            b"Content-Type: application/x-git-upload-pack-request\r\nContent-Length: 1000\r\n\r\n0014"
        )
        async with asyncio.timeout(5):
            while children() == before:
                await asyncio.sleep(0.01)
        writer.close()
        async with asyncio.timeout(5):
            while children() != before:
                await asyncio.sleep(0.01)
