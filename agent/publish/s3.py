"""Publishing to S3, and what speaks the same, through obstore; endpoint and logins as the agent has them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from agent.artifact.http_access import Trust
from agent.artifact.limits import DEFAULTS
from agent.artifact.objects import ObjectSource
from agent.artifact.s3 import S3, S3Access
from agent.artifact.source import path_of, shown, split
from agent.domain.errors import Failure, Permanent
from agent.publish.pack import Tell
from agent.publish.places import Item, taken
from agent.publish.trouble import Trouble

_AT_ONCE = 32 << 20  # bytes; what is larger goes in parts
_PIECE = 1 << 20


class Bucket:
    """Buckets. What is not larger than `_AT_ONCE` is written by one conditional request: no race."""

    def __init__(self, access: S3Access) -> None:
        self._source = ObjectSource(S3(access), DEFAULTS, Trust(None))

    async def sha256(self, url: str) -> str:
        """See Place."""
        digest = hashlib.sha256()
        try:
            async with self._source.open(url) as body:
                assert body is not None
                while piece := await body.read():
                    digest.update(piece)
        except Permanent as failure:
            if failure.reason == "ArtifactNotFound":
                return ""
            raise _trouble(failure) from None
        except Failure as failure:
            raise _trouble(failure) from None
        return digest.hexdigest()

    async def put(self, item: Item, tell: Tell, *, replace: bool) -> None:
        """See Place."""
        where, key = shown(item.url), path_of(item.url).lstrip("/")
        try:
            with self._source.telling(where):
                store = await asyncio.to_thread(self._source.client, split(item.url).netloc, where)
                async with asyncio.timeout(DEFAULTS.total):
                    if item.size <= _AT_ONCE:
                        data = await asyncio.to_thread(item.path.read_bytes)
                        await store.put_async(key, data, mode="overwrite" if replace else "create")
                    else:
                        await store.put_async(key, _pieces(item, tell))
        except Failure as failure:
            raise _trouble(failure) from None
        except FileExistsError:
            raise taken(item.url) from None


def _trouble(failure: Failure) -> Trouble:
    if failure.reason == "ArtifactDenied":
        remedy = (
            "give credentials that may write there: --s3-credentials-file, or AWS_ACCESS_KEY_ID and so on"
        )
        return Trouble(f"{failure.info.where}: S3 refuses", remedy)
    return Trouble.of(failure)


async def _pieces(item: Item, tell: Tell) -> AsyncIterator[bytes]:
    done = 0
    with item.path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
            done += len(piece)
            tell(done, item.size)
