"""sftp://USER@HOST[:PORT]/PATH (draft-ietf-secsh-filexfer-02, what OpenSSH speaks), by asyncssh.

The path is absolute, or with /~/ below the user's home. A download goes on where an earlier one ended when
size and time of the file are the same; that is no proof, as a strong ETag is one, so the digest of the whole
has to be right, and all is fetched anew when it is not. asyncssh is loaded with the first such artifact.
"""

from __future__ import annotations

import asyncio
import importlib
import stat
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from agent.artifact.limits import Limits
from agent.artifact.source import Body, Have, path_of, shown, split
from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.kit.tasks import Owned
from agent.kit.text import printable
from agent.ssh.access import SSH_PORT, Host, SshAccess

if TYPE_CHECKING:
    from asyncssh import SFTPClientFile

_BLOCK = 128 * 1024  # asked for at once; a server may answer less
_AHEAD = 8  # blocks under way side by side


class SftpSource:
    """See Source. A connection each time: it costs little beside what is worth fetching."""

    schemes: tuple[str, ...] = ("sftp",)

    def __init__(self, access: SshAccess, limits: Limits) -> None:
        self._access = access
        self._limits = limits

    @asynccontextmanager
    async def open(
        self, url: str, *, unless: str = "", have: Have | None = None
    ) -> AsyncIterator[Body | None]:
        """See Source.open. The validator is made of size and time."""
        where = shown(url)
        host, path = parse(url)
        async with AsyncExitStack() as stack:
            with self._telling(where):
                async with asyncio.timeout(self._limits.connect + self._limits.idle):
                    file = await self._opened(host, path, stack)
                    attributes = await file.stat()
            if attributes.permissions is not None and not stat.S_ISREG(attributes.permissions):
                raise Permanent("ArtifactRefused", "not a regular file", where=where)
            if attributes.size is None:
                raise Permanent("ArtifactRefused", "the SFTP server does not tell its size", where=where)
            size, validator = attributes.size, f"{attributes.size}-{attributes.mtime}"
            if validator == unless:
                yield None
                return
            fits = have is not None and (have.total, have.validator) == (size, validator)
            start = have.size if have is not None and fits else 0
            ahead = await stack.enter_async_context(_Ahead(file, start, size))

            async def read() -> bytes:
                with self._telling(where):
                    async with asyncio.timeout(self._limits.idle):
                        return await ahead.read()

            yield Body(size, validator, read, start, resumable=size > 0)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    async def _opened(self, host: Host, path: str, stack: AsyncExitStack) -> SFTPClientFile:
        session = await asyncio.to_thread(importlib.import_module, "agent.ssh.connection")
        connection = await session.connect([host], self._access)
        stack.push_async_callback(connection.aclose)
        client = await connection.ssh.start_sftp_client()
        file: SFTPClientFile = await client.open(path, "rb", encoding=None, block_size=0)
        return file

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        """Tell the library's errors as failures."""
        try:
            yield
        except TimeoutError:
            raise Transient("ArtifactTimeout", "the SFTP server fell silent", where=where) from None
        except Exception as error:
            import asyncssh  # known by now, or the error is none of its own

            from agent.ssh.connection import unavailable

            if isinstance(error, (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)):
                raise Permanent(
                    "ArtifactNotFound",
                    "the SFTP server has no such file",
                    where=where,
                    remedy="upload it, or correct the URL",
                ) from None
            if isinstance(error, asyncssh.SFTPPermissionDenied):
                raise OperatorNeeded(
                    "ArtifactDenied", "the SFTP server refuses", where=where, remedy="let the user read it"
                ) from None
            if isinstance(error, asyncssh.SFTPError):
                message = f"the SFTP server says: {printable(error.reason, 200)}"
                raise Transient("ArtifactUnavailable", message, where=where) from None
            if isinstance(error, (asyncssh.Error, OSError)):
                raise unavailable(error, where, self._access.words) from None
            raise


class _Ahead:
    """Reads a file from `start` to `end`, some blocks ahead. An asynchronous context manager."""

    def __init__(self, file: SFTPClientFile, start: int, end: int) -> None:
        self._file = file
        self._next = start
        self._end = end
        self._blocks: deque[asyncio.Task[bytes]] = deque()
        self._tasks = Owned("sftp", on_error=lambda _: None)  # told by `read`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    async def read(self) -> bytes:
        """The next bytes, b"" at the end, even one that comes early. Raises asyncssh.Error, OSError."""
        while self._next < self._end and len(self._blocks) < _AHEAD:
            size = min(_BLOCK, self._end - self._next)
            self._blocks.append(self._tasks.start(self._block(self._next, size), name=f"at {self._next}"))
            self._next += size
        return await self._blocks.popleft() if self._blocks else b""

    async def _block(self, offset: int, size: int) -> bytes:
        block = b""
        while len(block) < size:
            piece: Any = await self._file.read(size - len(block), offset + len(block))
            if not piece:
                break
            block += piece
        return block


def parse(url: str) -> tuple[Host, str]:
    """The server, and the path there. Raises Permanent (UrlInvalid)."""
    where, parts, path = shown(url), split(url), path_of(url)
    try:
        host, port = parts.hostname, parts.port or SSH_PORT
    except ValueError:
        host, port = None, 0
    user = unquote(parts.username or "")
    if parts.password:
        message = "a password is of no use with sftp; name a key (--sftp-key)"
        raise Permanent("UrlInvalid", message, where=where)
    if not host or not user or parts.query or parts.fragment or len(path) < 2 or not path.isprintable():
        raise Permanent("UrlInvalid", "write sftp://USER@HOST/PATH", where=where)
    return Host(host, port, user, where), path.removeprefix("/~/")
