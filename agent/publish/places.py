"""Where files are published to, one class a kind of place, and the one rule for all of them.

The rule: what is there with the same bytes is left alone, so a job may run again; what is there with other
bytes is not replaced unless that is asked for, because agents that have it and agents that fetch it would run
two programs under one name.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from yarl import URL

from agent.artifact.http_access import authorization
from agent.artifact.source import shown
from agent.domain.errors import Failure
from agent.kit.files import sync_directory
from agent.publish.http import Sender, Upload, refusal
from agent.publish.pack import Tell
from agent.publish.trouble import Trouble
from agent.source.git.credentials import basic, read_login

T = TypeVar("T")
TRIES = 5
_PAUSE = 0.25  # seconds; doubled before each try
_LONGEST = 60.0  # seconds that a server may ask us to wait
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """A file here and its URL there."""

    path: Path
    url: str
    sha256: str
    size: int


class Place(Protocol):
    """Takes files. Methods raise Trouble, passing where another try may help."""

    async def sha256(self, url: str) -> str:
        """The digest (hex) of what is there; "" when nothing is, or nobody may look."""

    async def put(self, item: Item, tell: Tell, *, replace: bool) -> None:
        """Write it there, whole or not at all."""


async def trying(action: Callable[[], Awaitable[T]]) -> T:
    """What `action` gives; passing trouble is tried through, at the pace asked for. Raises Trouble."""
    for again in range(1, TRIES):
        try:
            return await action()
        except Trouble as trouble:
            if not trouble.passing:
                raise
            pause = _PAUSE * 2**again * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            await asyncio.sleep(min(max(pause, trouble.wait or 0), _LONGEST))
    return await action()


async def publish(place: Place, item: Item, tell: Tell, *, replace: bool) -> bool:
    """Bring `item` to its place; False when it was there. Raises Trouble."""

    async def once() -> bool:
        there = await place.sha256(item.url)
        if there == item.sha256:
            return False
        if there and not replace:
            raise taken(item.url)
        await place.put(item, tell, replace=replace)
        return True

    return await trying(once)


def taken(url: str) -> Trouble:
    """Another file has that name."""
    return Trouble(
        f"{shown(url)}: there is another file of that name already",
        "publish under a new version, or say --replace",
    )


class Directory:
    """A directory of this machine, as file:///PATH."""

    async def sha256(self, url: str) -> str:
        """See Place."""
        return await asyncio.to_thread(self._digest, Path(url.removeprefix("file://")))

    async def put(self, item: Item, tell: Tell, *, replace: bool) -> None:
        """See Place."""
        await asyncio.to_thread(self._copy, item, Path(item.url.removeprefix("file://")), replace)
        tell(item.size, item.size)

    def _digest(self, path: Path) -> str:
        try:
            return digest_of(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise Trouble(f"{path}: {error.strerror or error}") from None

    def _copy(self, item: Item, target: Path, replace: bool) -> None:
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with item.path.open("rb") as source, beside.open("wb") as file:
                shutil.copyfileobj(source, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.rename(beside, target)
            else:
                os.link(beside, target)  # fails where somebody was faster
                beside.unlink()
            sync_directory(target.parent)
        except FileExistsError:
            raise taken(item.url) from None
        except OSError as error:
            raise Trouble(f"{target}: {error.strerror or error}") from None
        finally:
            with suppress(FileNotFoundError):
                beside.unlink()


class Http:
    """A server that takes PUT: WebDAV of nginx or Apache, Nexus, Artifactory, a forge's generic packages."""

    def __init__(self, sender: Sender, credentials: Path | None) -> None:
        self._sender = sender
        self._credentials = credentials
        netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        self._netrc = netrc if netrc.is_file() else None

    async def sha256(self, url: str) -> str:
        """See Place."""
        async with self._sender.exchange("GET", url, {}, secret=await self._secret(url)) as response:
            if response.status in (401, 403, 404, 405, 410):
                return ""
            if response.status != 200:
                raise refusal(response, shown(url))
            digest = hashlib.sha256()
            while piece := await response.content.readany():
                digest.update(piece)
            return digest.hexdigest()

    async def put(self, item: Item, tell: Tell, *, replace: bool) -> None:
        """See Place."""
        headers = {"Content-Type": "application/octet-stream"}
        if not replace:
            headers["If-None-Match"] = "*"  # RFC 9110 section 13.1.2; who obeys it closes the race
        body = Upload(item.path, item.size, tell)
        secret = await self._secret(item.url)
        async with self._sender.exchange("PUT", item.url, headers, secret=secret, body=body) as response:
            if response.status == 412 and not replace:
                raise taken(item.url)
            if response.status not in (200, 201, 202, 204):
                raise refusal(
                    response, shown(item.url), "name a login for it: --credentials-file, or ~/.netrc"
                )

    async def _secret(self, url: str) -> dict[str, str]:
        """Of the file of credentials, else as curl(1) finds it: NETRC or ~/.netrc."""
        try:
            if self._credentials is not None:
                login = await asyncio.to_thread(read_login, self._credentials, url, named_only=True)
                if login is not None:
                    return {"Authorization": basic(*login)}
            found = await authorization(self._netrc, URL(url))
        except Failure as failure:
            raise Trouble.of(failure) from None
        except ValueError:
            raise Trouble(f"{shown(url)}: not a URL") from None
        return {"Authorization": found} if found else {}


def digest_of(path: Path) -> str:
    """sha256 (hex) of a file. Blocks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
