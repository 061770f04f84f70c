"""Artifacts from Git repositories: where the Git client and the fetching of artifacts meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from agent.config import Settings
from agent.domain.errors import Failure, Permanent
from agent.domain.git_reference import Reference
from agent.source.git.access import http_access, ssh_access
from agent.source.git.remote import GitRemote

DEADLINE = 300.0  # seconds for one commit
_TOO_LARGE = ("RepositoryTooLarge", "TreeTooLarge")


class GitPacker:
    """See `agent.artifact.git.Packer`. Git is reached as the settings say for the state repository.

    But for credentials that name no host: those are meant for the state repository alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def __call__(self, wanted: Reference, where: str) -> AsyncIterator[Iterator[bytes]]:
        """See Packer. A connection each time, and the whole commit, of which the path is kept."""
        settings = self._settings
        try:
            remote = GitRemote(
                wanted.repository, credentials=settings.credentials_file, named_only=True, deadline=DEADLINE,
                ssh=ssh_access(settings), http=http_access(settings), scratch=settings.data,
            )  # fmt: skip
            async with remote:
                with await remote.fetch(wanted.commit) as snapshot:
                    yield snapshot.packed(wanted.path)
        except Failure as failure:
            raise _told(failure, where) from None


def _told(failure: Failure, where: str) -> Failure:
    """The same in the words of artifacts, where those of the state repository would mislead."""
    info = failure.info
    if info.reason in _TOO_LARGE:
        message = "the commit is larger than what is fetched from a repository"
        return Permanent("ArtifactTooLarge", message, where=where, remedy="publish it as a release's file")
    if info.reason == "RepositoryUrl":
        message = info.message.replace("the state repository", "the repository")
        return Permanent("UrlInvalid", message, where=where)
    return failure
