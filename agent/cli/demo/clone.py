"""A user's clone of the state repository, driven by the git program; needs no configuration of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.cli.demo.git_server import git

IDENTITY = {
    "GIT_AUTHOR_NAME": "emptybox demo",
    "GIT_AUTHOR_EMAIL": "demo@localhost",
    "GIT_COMMITTER_NAME": "emptybox demo",
    "GIT_COMMITTER_EMAIL": "demo@localhost",
}


class Clone:
    """A work tree at `directory`. Every method raises RuntimeError with git's words when git fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    async def of(cls, url: str, directory: Path) -> Clone:
        """Clone."""
        await git("clone", "-q", url, str(directory))
        return cls(directory)

    async def commit(self, files: Mapping[str, str], message: str) -> str:
        """Write the files and commit them; returns the commit's id."""
        for name, text in files.items():
            (self.directory / name).write_text(text)
        await self._git("add", "-A")
        await self._git("commit", "-q", "-m", message)
        return await self._git("rev-parse", "HEAD")

    async def push(self) -> None:
        """Push the branch main, over HTTP."""
        await self._git("push", "-q", "origin", "HEAD:main")

    async def _git(self, *arguments: str) -> str:
        return await git(*arguments, directory=self.directory, extra=IDENTITY)
