"""The state repository as the agent sees it: what a ref points to, and one commit of it.

How a ref is read, in this order: `HEAD` (the default branch); a full commit id; a full name
(`refs/...`); a branch; a tag. So of a branch and a tag with one name the branch is meant; write
`refs/tags/x` for the tag. Annotated tags are followed to their commit. Names are compared whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.config import Settings
from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.kit.text import printable
from agent.source.git import address
from agent.source.git.access import HttpAccess, http_access, ssh_access
from agent.source.git.client import ProtocolClient
from agent.source.git.failover import Failover
from agent.source.git.history import Passage, TooLong
from agent.source.git.http import HttpTransport
from agent.source.git.local import LocalRepository
from agent.source.git.protocol import Ref, is_object_id, is_ref_name
from agent.source.git.snapshot import Snapshot
from agent.source.git.ssh import SshTransport
from agent.source.git.threads import abandonable
from agent.source.git.transport import Repository
from agent.ssh.access import SshAccess

__all__ = ["GitRemote", "Snapshot", "remote_of"]

EARLIER_MAX = 1000
FIRST_DEPTH, DEEPER, LAST_DEPTH = 8, 8, 8**5  # generations of history, until what is looked for is found
T = TypeVar("T")


class GitRemote:
    """One state repository, asked for as long as the agent lives. An async context manager.

    Args:
        url: http://, https:// (user:password@ in it is used and never shown), ssh:// or user@host:path,
            or file://.
        credentials: file with a token or user:password, read again on each use; wins over the URL's.
        ssh: how to reach SSH servers.
        http: how to reach HTTP servers.
        named_only: credentials that name no host are meant for another repository, not for this one.
        mirrors: other places of the repository, asked in this order when `url` does not answer.
        deadline: seconds that any one call may take, everything included.
        scratch: directory for packs that are too large for memory; None is the system's.

    Every call raises the failures of agent.domain.errors: Transient("GitTimeout", "GitUnavailable",
    "GitProtocol", "GitRefused", "RefNotFound", "CommitNotFound"), OperatorNeeded("GitAuth",
    "RepositoryNotFound", "RepositoryUrl", "RefInvalid", "RedirectRefused", "GitTls",
    "HostKeyRefused", "GitServerUnsupported", "DiskFull"), Permanent("RepositoryTooLarge", "NotACommit").
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Path | None = None,
        ssh: SshAccess | None = None,
        http: HttpAccess | None = None,
        mirrors: Sequence[str] = (),
        named_only: bool = False,
        deadline: float = 30.0,
        scratch: Path | None = None,
    ) -> None:
        self.deadline = deadline
        http = http or HttpAccess()

        def reach(url: str, *, mirror: bool = False) -> Repository:
            place = address.parse(http.mapped(url) or url)
            if place.scheme == "file":
                return LocalRepository(place)
            if place.scheme == "ssh":
                return ProtocolClient(SshTransport(place, ssh), scratch=scratch)
            return ProtocolClient(HttpTransport(place, credentials, http, mirror=mirror), scratch=scratch)

        places = [reach(url, mirror=named_only), *(reach(other, mirror=True) for other in mirrors)]
        self._repository = Failover(places, deadline / len(places)) if mirrors else places[0]

    @property
    def where(self) -> str:
        """The repository's URL without credentials."""
        return self._repository.where

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drop all connections."""
        await self._repository.aclose()

    async def ls_ref(self, ref: str) -> str:
        """The commit that `ref` points to. One request; none for a full commit id, which cannot change."""
        if is_object_id(ref.lower()):
            return ref.lower()
        async with self._within_deadline():
            return (await self._look(ref)).commit

    async def fetch(self, commit: str, *, depth: int = 1) -> Snapshot:
        """A commit by its full id (or that of an annotated tag), with `depth` generations of history."""
        async with self._within_deadline():
            return await self._take(commit, depth)

    async def resolve(self, ref: str, announced: str | None, *, tag: bool = False) -> Snapshot:
        """The commit that `ref` points to now; with `tag`, the annotated tag in between is at hand as well.

        The `announced` commit is fetched while the ref is looked up, and is the answer only if the ref
        points to it; else what the ref says is fetched.
        """
        async with self._within_deadline():
            if is_object_id(ref.lower()):
                return await self._take(ref.lower(), 1)
            if announced is None or not is_object_id(announced) or not announced.strip("0"):
                found = await self._look(ref)
                return await self._take(found.oid if tag else found.commit, 1)
            return await self._resolve_announced(ref, announced, tag)

    async def earlier(self, commit: str, count: int) -> list[str]:
        """Up to `count` first-parent ids before `commit`, newest first; fewer where history ends."""
        count = min(count, EARLIER_MAX)
        async with self._within_deadline():
            with await self._take(commit, count + 1, trees=False) as snapshot:
                return await asyncio.to_thread(lambda: snapshot.log(count + 1)[1:])

    async def since(self, commit: str, old: str, *, all_commits: bool) -> Passage:
        """From `old` to `commit`: commits only, deepened until `old` is found, or every commit since.

        Raises OperatorNeeded("HistoryTooLong").
        """
        async with self._within_deadline():
            depth = FIRST_DEPTH
            while True:
                with await self._take(commit, depth, trees=False) as snapshot:
                    try:
                        found = await asyncio.to_thread(snapshot.passage, old)
                    except TooLong:
                        raise self._too_long() from None
                if found.whole or (found.contained and not all_commits):
                    return found
                if depth >= LAST_DEPTH:
                    raise self._too_long()
                depth *= DEEPER

    def _too_long(self) -> Failure:
        message = "more commits came since the last deployed one than are looked through"
        remedy = "if that is right: emptybox sync --accept-history"
        return OperatorNeeded("HistoryTooLong", message, where=self.where, remedy=remedy)

    async def _resolve_announced(self, ref: str, announced: str, tag: bool) -> Snapshot:
        early: Snapshot | Failure | None = None

        async def take_early() -> None:
            nonlocal early
            early = await _settled(self._take(announced, 1))

        try:
            async with asyncio.TaskGroup() as group:
                taking = group.create_task(take_early(), name="git/fetch announced")
                value = await _settled(self._look(ref))
                if isinstance(value, Failure) or announced not in _answers(value, tag):
                    taking.cancel()
            if isinstance(value, Failure):
                raise value
            if announced in _answers(value, tag) and isinstance(early, Snapshot):
                snapshot, early = early, None
                return snapshot
            return await self._take(value.oid if tag else value.commit, 1)
        finally:
            if isinstance(early, Snapshot):
                early.close()

    async def _look(self, ref: str) -> Ref:
        """What `ref`, which is not an id, points to. Raises Transient("RefNotFound")."""
        if not is_ref_name(ref):
            raise OperatorNeeded(
                "RefInvalid",
                f"{printable(ref, 80)!r} cannot be the name of a branch or tag",
                where=self.where,
                remedy="correct --ref",
            )
        names = (
            [ref] if ref == "HEAD" or ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        )
        found = await self._repository.refs(names)
        for name in names:
            if name in found:
                return found[name]
        kind = "ref" if ref.startswith("refs/") else "branch or tag"
        raise Transient(
            "RefNotFound",
            "the repository has no commit on its default branch yet"
            if ref == "HEAD"
            else f"the repository has no {kind} named {printable(ref, 80)!r}",
            where=self.where,
            remedy="push it, or correct --ref",
        )

    async def _take(self, commit: str, depth: int, *, trees: bool = True) -> Snapshot:
        if not is_object_id(commit):
            raise Transient(
                "CommitNotFound", f"{printable(commit, 80)!r} is not a full commit id", where=self.where
            )
        objects = await self._repository.take(commit, depth=depth, trees=trees)
        return await abandonable(lambda: Snapshot(objects, commit, self.where), Snapshot.close)

    @asynccontextmanager
    async def _within_deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.deadline):
                yield
        except TimeoutError as error:
            message = f"the repository did not answer within {self.deadline:g} s"
            raise Transient("GitTimeout", message, where=self.where) from error


def remote_of(settings: Settings) -> GitRemote:
    """What the settings follow. Raises OperatorNeeded("RepositoryUrl")."""
    return GitRemote(
        settings.repo, credentials=settings.credentials_file, ssh=ssh_access(settings),
        http=http_access(settings), mirrors=settings.mirrors,
    )  # fmt: skip


def _answers(value: Ref, tag: bool) -> tuple[str, ...]:
    """The announced ids with which the right thing was fetched."""
    return (value.oid,) if tag else (value.oid, value.peeled)


async def _settled(work: Coroutine[Any, Any, T]) -> T | Failure:
    """A result or an expected failure as a value: in a task group neither ends the others."""
    try:
        return await work
    except Failure as failure:
        return failure
