"""s3://BUCKET/KEY, over obstore: at Amazon's, or an endpoint that speaks the same (MinIO and others).

Credentials come from a file in the form of AWS (`[default]`, aws_access_key_id and so on), read again on each
use; without one from where obstore finds them: the environment (AWS_…), a web identity, the instance's own.
The library is imported with the first such artifact.
"""

from __future__ import annotations

import asyncio
import configparser
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.artifact.limits import Limits
from agent.artifact.resume import strong
from agent.artifact.source import Body, Have, path_of, shown, split
from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets

_PIECE = 256 * 1024
_FILE = 1024 * 1024  # bytes of a file of credentials
_SECTION = "default"
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How S3 is reached. An `endpoint` that begins with http:// is spoken to in plain http."""

    endpoint: str = ""
    region: str = ""
    credentials: Path | None = None


class S3Source:
    """See Source. Each bucket's client is kept as long as the credentials stay the same."""

    schemes: tuple[str, ...] = ("s3",)

    def __init__(self, access: S3Access, limits: Limits) -> None:
        self._access = access
        self._limits = limits
        self._stores: dict[str, tuple[dict[str, str], Any]] = {}

    @asynccontextmanager
    async def open(
        self, url: str, *, unless: str = "", have: Have | None = None
    ) -> AsyncIterator[Body | None]:
        """See Source.open. The validator is the ETag."""
        where = shown(url)
        bucket, key = split(url).netloc, path_of(url).lstrip("/")
        if not key:
            raise Permanent("UrlInvalid", "write s3://BUCKET/KEY", where=where)
        store = await asyncio.to_thread(self._store, bucket, where)
        found = await self._rest(store, key, have) if have is not None else None
        start = have.size if found is not None and have is not None else 0
        if found is None:
            from obstore.exceptions import NotModifiedError

            try:
                with self._telling(where):
                    found = await self._get(store, key, {"if_none_match": unless} if unless else {})
            except NotModifiedError:
                yield None
                return
        # In a list, to be let go of for sure when we leave: that is what closes the connection.
        streams = [found.stream(min_chunk_size=_PIECE).__aiter__()]

        async def read() -> bytes:
            with self._telling(where):
                async with asyncio.timeout(self._limits.idle):
                    return bytes(await anext(streams[0], b""))

        tag = found.meta["e_tag"] or ""
        size = found.meta["size"]
        del found
        try:
            yield Body(size, tag, read, start, resumable=strong(tag) and size > 0)
        finally:
            streams.clear()

    async def aclose(self) -> None:
        """The library closes its connections itself."""
        self._stores.clear()

    async def _get(self, store: Any, key: str, options: dict[str, Any]) -> Any:
        async with asyncio.timeout(self._limits.connect + self._limits.idle):
            return await store.get_async(key, options=options)

    async def _rest(self, store: Any, key: str, have: Have) -> Any:
        """The very rest of what is here; None when that is not to be had. The plain request tells why."""
        from obstore.exceptions import BaseError

        try:
            found = await self._get(store, key, {"range": {"offset": have.size}, "if_match": have.validator})
        except (BaseError, TimeoutError):
            return None
        fits = (found.meta["e_tag"], found.meta["size"]) == (have.validator, have.total)
        return found if fits and tuple(found.range) == (have.size, have.total) else None

    def _store(self, bucket: str, where: str) -> Any:
        """The bucket's client. Blocks. Raises OperatorNeeded, Permanent."""
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        options = self._login()
        known = self._stores.get(bucket)
        if known is not None and known[0] == options:
            return known[1]
        access = self._access
        wanted = {**options, "endpoint": access.endpoint, "region": access.region}
        config: Any = {name: value for name, value in wanted.items() if value}
        try:
            store = S3Store(
                bucket,
                config=config,
                client_options={
                    "allow_http": access.endpoint.startswith("http://"),
                    "connect_timeout": f"{self._limits.connect:g}s",
                    "timeout": f"{self._limits.total:g}s",
                },
                retry_config={"max_retries": 1},  # the agent tries again itself
            )
        except (BaseError, ValueError) as error:
            raise Permanent("UrlInvalid", f"no bucket of S3: {str(error)[:200]}", where=where) from None
        self._stores[bucket] = options, store
        while len(self._stores) > 16:
            del self._stores[next(iter(self._stores))]
        return store

    def _login(self) -> dict[str, str]:
        """What the file of credentials says; nothing without one. Raises OperatorNeeded."""
        path = self._access.credentials
        if path is None:
            return {}
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(_FILE)
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(text)
            section = parser[_SECTION]
            found = {ours: section[theirs] for theirs, ours in _KEYS.items() if section.get(theirs)}
        except OSError as error:
            raise _no_credentials(path, error.strerror or str(error)) from None
        except (configparser.Error, KeyError, ValueError):  # not the error's text: it quotes the file
            raise _no_credentials(path, f"not a file with a section [{_SECTION}]") from None
        if not {"access_key_id", "secret_access_key"} <= set(found):
            raise _no_credentials(path, "aws_access_key_id or aws_secret_access_key is missing")
        secrets.add(*(value for name, value in found.items() if name != "access_key_id"))
        return found

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        """Tell the library's errors as failures."""
        from obstore import exceptions as problems

        try:
            yield
        except problems.NotModifiedError:
            raise
        except (problems.NotFoundError, FileNotFoundError):  # the library raises either
            raise Permanent(
                "ArtifactNotFound",
                "S3 has no such object",
                where=where,
                remedy="upload it, or correct the URL",
            ) from None
        except (problems.PermissionDeniedError, problems.UnauthenticatedError):
            raise OperatorNeeded(
                "ArtifactDenied",
                "S3 refuses",
                where=where,
                remedy="give this agent credentials that may read it (--s3-credentials-file)",
            ) from None
        except problems.InvalidPathError:
            raise Permanent("UrlInvalid", "not a key of S3", where=where) from None
        except TimeoutError:
            raise Transient("ArtifactTimeout", "S3 fell silent", where=where) from None
        except problems.BaseError as error:
            text = secrets.text(str(error).partition("\n")[0])[:300]
            raise Transient("ArtifactUnavailable", text, where=where) from None


def _no_credentials(path: Path, message: str) -> OperatorNeeded:
    return OperatorNeeded(
        "StorageCredentialsInvalid",
        message,
        where=str(path),
        remedy="correct what --s3-credentials-file names",
    )
