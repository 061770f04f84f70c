"""The seams of the Git client: how bytes reach a server, and what a repository offers.

Each way to reach a server is one `Transport`; all the conversation above it stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agent.source.git.protocol import Ref


class Transport(Protocol):
    """Carries requests to one server. Deadlines are its caller's: cancelled, it drops its connection.

    Failures come as agent.domain.errors: Transient("GitUnavailable") when the server cannot be reached
    or is in trouble, Transient("GitProtocol") when what answers is no Git server any more,
    OperatorNeeded("GitAuth", "RepositoryNotFound", "RedirectRefused", "GitTls",
    "HostKeyRefused", "GitServerUnsupported").
    """

    @property
    def where(self) -> str:
        """The repository's URL without credentials."""

    async def advertise(self) -> bytes:
        """The server's capability advertisement, as pkt-lines, bounded."""

    def exchange(self, request: bytes) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Send one command; the response's bytes as they come. The caller bounds how many it takes."""

    def forget(self) -> None:
        """Forget what was learned about where the server is: the next `advertise` begins anew."""

    async def aclose(self) -> None:
        """Drop all connections."""


class Objects(Protocol):
    """Git objects that are at hand. Everything blocks; safe to use from several threads."""

    @property
    def object_format(self) -> str:
        """What ids are made with: sha1 or sha256."""

    @property
    def shallow(self) -> AbstractSet[str]:
        """Commits whose parents are not at hand, on purpose."""

    def get(self, oid: str) -> tuple[int, bytes]:
        """Type (1 commit, 2 tree, 3 blob, 4 tag) and content, which `oid` is the hash of.

        Raises KeyError when it is not at hand, Garbled when it is damaged.
        """

    def close(self) -> None:
        """Release files and memory; idempotent."""


class Repository(Protocol):
    """What `GitRemote` needs of a repository, wherever it is. Failures as for `Transport`."""

    @property
    def where(self) -> str:
        """The repository's URL without credentials."""

    async def refs(self, names: Collection[str]) -> Mapping[str, Ref]:
        """What these full names (or HEAD) point to; names that are not there are left out."""

    async def take(self, want: str, *, depth: int, trees: bool = True) -> Objects:
        """One commit (or annotated tag), `depth` generations of it, with all of its tree or without.

        The caller closes what it gets. Raises Transient("CommitNotFound").
        """

    async def aclose(self) -> None:
        """Release connections and files."""
