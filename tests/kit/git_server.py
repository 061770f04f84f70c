"""Real Git for tests: `Forge`, a smart HTTP server that counts, and repositories to commit and push with.

    async with Forge(tmp_path) as forge:
        state = await forge.repository("state")
        first = await state.put({"state.yaml": "schema: 1"})         # commit, and publish by path: fast
        await state.commit({"bin/run": Executable("#!/bin/sh")}); await state.push()   # a push over HTTP

Contents of files are str or bytes, `Executable`, `Link`, or None to remove one. Runs the git program.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from aiohttp import web

from agent.cli.demo.git_server import GitServer, Pushed, git

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Cleo Committer",
    "GIT_COMMITTER_EMAIL": "cleo@example.org",
    "GIT_ALLOW_PROTOCOL": "http:file",
}


@dataclass(frozen=True)
class Executable:
    """A file of mode 755."""

    content: str | bytes


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


class Signer(Protocol):
    """Somebody who signs: see tests/kit/signing.py."""

    @property
    def flags(self) -> Sequence[str]:
        """Words for git's command line."""


Content = str | bytes | Executable | Link | None


def need_git() -> None:
    """Skip the test where there is no git program, but fail in CI."""
    if shutil.which("git") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have the git program")
        pytest.skip("the git program is missing")


class Repository:
    """A bare repository on the server at `path` and `url`, and a work tree of it at `work`."""

    def __init__(self, forge: Forge, name: str, work: Path) -> None:
        self.name = name
        self.path = forge.root / name
        self.work = work
        self.signer: Signer | None = None  # who signs each commit and tag
        self._forge = forge
        self._time = 1_700_000_000

    @property
    def url(self) -> str:
        """Its URL over smart HTTP."""
        return f"{self._forge.url}/{self.name}"

    async def git(self, *arguments: str) -> str:
        """Run git in the work tree."""
        stamp = f"{self._time} +0000"
        times = {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
        return await git(*arguments, directory=self.work, extra={**IDENTITY, **times})

    async def commit(self, files: Mapping[str, Content] = {}, message: str = "a change") -> str:
        """Write the files and commit; returns the commit's id. Nothing is pushed."""
        self._time += 1
        await asyncio.to_thread(self._write, files)
        await self.git("add", "-A", "-f")
        signing = [*self.signer.flags, "commit", "-S"] if self.signer else ["commit"]
        await self.git(*signing, "-q", "--allow-empty", "-m", message)
        return await self.git("rev-parse", "HEAD")

    async def tag(self, name: str, target: str = "HEAD") -> None:
        """Make an annotated tag, signed by `signer`, and publish it."""
        signing = [*self.signer.flags, "tag", "-s"] if self.signer else ["tag", "-a"]
        await self.git(*signing, "-f", "-m", name, name, target)
        await self.publish(f"refs/tags/{name}")

    async def publish(self, *refspecs: str) -> None:
        """Push by path, past the HTTP server: fast, and `on_push` does not hear of it. Default: HEAD."""
        await self.git("push", "-q", "--force", str(self.path), *(refspecs or ("HEAD",)))

    async def push(self, *refspecs: str) -> None:
        """Push over HTTP, as a user does. Default: HEAD."""
        await self.git("push", "-q", "--force", self.url, *(refspecs or ("HEAD",)))

    async def put(self, files: Mapping[str, Content] = {}, message: str = "a change") -> str:
        """`commit` and `publish`."""
        commit = await self.commit(files, message)
        await self.publish()
        return commit

    def _write(self, files: Mapping[str, Content]) -> None:
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if content is None:
                continue
            if isinstance(content, Link):
                path.symlink_to(content.target)
                continue
            data = content.content if isinstance(content, Executable) else content
            path.write_bytes(data.encode() if isinstance(data, str) else data)
            path.chmod(0o755 if isinstance(content, Executable) else 0o644)


class Forge(GitServer):
    """The smart HTTP server below `directory`, which remembers what it was asked.

    `requests` holds "METHOD /path?query" of each, `connections` the client ports they came from.
    """

    def __init__(
        self,
        directory: Path,
        *,
        logins: Mapping[str, str] | None = None,
        on_push: Callable[[Pushed], Awaitable[None]] | None = None,
    ) -> None:
        need_git()
        super().__init__(directory / "served", logins=logins, on_push=on_push)
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.connections: set[int] = set()
        self._directory = directory

    async def start(self) -> None:
        """Begin to serve; after `stop` ("the forge is away"), at the same address again."""
        self.root.mkdir(parents=True, exist_ok=True)
        await super().start()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    async def repository(
        self, name: str = "state.git", *, branch: str = "main", object_format: str = "sha1"
    ) -> Repository:
        """Make a bare repository and its work tree; empty, no commit yet."""
        await self.create(name, branch=branch, object_format=object_format)
        work = self._directory / "work" / name
        await git("init", "-q", f"--initial-branch={branch}", f"--object-format={object_format}", str(work))
        return Repository(self, name, work)

    def drop_connections(self) -> int:
        """Close every connection from the server's side, as a restarted server would; how many there were."""
        assert self._runner is not None
        assert self._runner.server is not None
        connections = list(self._runner.server.connections)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        return len(connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Count, then serve."""
        self.requests.append(f"{request.method} {request.path_qs}")
        self.authorizations.append(request.headers.get("Authorization", ""))
        if request.transport is not None:
            self.connections.add(request.transport.get_extra_info("peername")[1])
        return await super().handle(request)
