"""git+https://, git+http://, git+ssh://: a path of a repository at a commit, see `domain.git_reference`.

The Git client belongs to another package: whoever puts the agent together hands over what packs a path. A
commit's id says what the bytes are, so they are asked for once only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from agent.artifact.source import Body, Have, shown
from agent.domain.errors import Permanent
from agent.domain.git_reference import SCHEMES, Reference, parse
from agent.kit.threads import settled

_PIECE = 256 * 1024


class Packer(Protocol):
    """Gets at what lies in Git."""

    def __call__(self, wanted: Reference, where: str) -> AbstractAsyncContextManager[Iterator[bytes]]:
        """The bytes of a path: a file, or a directory as a tar, always the same; each step blocks.

        Raises Failure, also while they are read.
        """


class GitSource:
    """See Source. Steps of the packer run in the threads of `executor`."""

    schemes: tuple[str, ...] = SCHEMES

    def __init__(self, packer: Packer, executor: Executor) -> None:
        self._packer = packer
        self._executor = executor

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        unless: str = "",
        have: Have | None = None,  # noqa: ARG002 - always from the start: Git sends all or nothing
    ) -> AsyncIterator[Body | None]:
        """See Source.open. The validator is the commit."""
        where = shown(url)
        try:
            wanted = parse(url)
        except ValueError as error:
            raise Permanent("UrlInvalid", str(error), where=where) from None
        if unless == wanted.commit:
            yield None
            return
        async with self._packer(wanted, where) as pieces:

            def some() -> bytes:
                found, size = [], 0
                for piece in pieces:
                    found.append(piece)
                    size += len(piece)
                    if size >= _PIECE:
                        break
                return b"".join(found)

            async def read() -> bytes:
                return await settled(asyncio.get_running_loop().run_in_executor(self._executor, some))

            yield Body(None, wanted.commit, read)

    async def aclose(self) -> None:
        """Nothing is kept open."""
