"""Objects of a cloud's storage, over obstore, which is imported with the first of them.

`Cloud` is what the kinds differ in: `s3`, `gcs` and `azure` have one each. Credentials are read again on each
use; the client of each bucket is kept as long as they stay the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.artifact.http_access import Trust
from agent.artifact.limits import Limits
from agent.artifact.resume import strong
from agent.artifact.source import Body, Have, path_of, shown, split
from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets

_PIECE = 256 * 1024
_FILE = 1024 * 1024  # bytes of a file of credentials
_CLIENTS = 16  # kept, most recent


class Cloud(Protocol):
    """One kind of storage.

    `scheme` is that of its URLs, `name` what people call it, `bucket` what it calls a bucket, `flag` the
    setting that names its credentials.
    """

    scheme: str
    name: str
    bucket: str
    flag: str

    def login(self) -> Mapping[str, str]:
        """The configuration of a client, credentials included. Blocks. Raises OperatorNeeded.

        An `endpoint` or `base_url` that begins with http:// is spoken to in plain http.
        """

    def store(self, bucket: str, login: Mapping[str, str], options: Mapping[str, Any]) -> Any:
        """Obstore's client for a bucket; `options` are `client_options` and `retry_config`."""


class ObjectSource:
    """See Source."""

    def __init__(self, cloud: Cloud, limits: Limits, trust: Trust) -> None:
        self.schemes: tuple[str, ...] = (cloud.scheme,)
        self._cloud = cloud
        self._limits = limits
        self._trust = trust
        self._stores: dict[str, tuple[Mapping[str, str], bytes, Any]] = {}

    @asynccontextmanager
    async def open(
        self, url: str, *, unless: str = "", have: Have | None = None
    ) -> AsyncIterator[Body | None]:
        """See Source.open. The validator is the ETag."""
        where = shown(url)
        bucket, key = split(url).netloc, path_of(url).lstrip("/")
        if not key:
            form = f"{self._cloud.scheme}://{self._cloud.bucket}/KEY"
            raise Permanent("UrlInvalid", f"write {form}", where=where)
        store = await asyncio.to_thread(self.client, bucket, where)
        found = await self._rest(store, key, have) if have is not None else None
        start = have.size if found is not None and have is not None else 0
        if found is None:
            from obstore.exceptions import NotModifiedError

            try:
                with self.telling(where):
                    found = await self._get(store, key, {"if_none_match": unless} if unless else {})
            except NotModifiedError:
                yield None
                return
        # In a list, to be let go of for sure when we leave: that is what closes the connection.
        streams = [found.stream(min_chunk_size=_PIECE).__aiter__()]

        async def read() -> bytes:
            with self.telling(where):
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

    def client(self, bucket: str, where: str) -> Any:
        """The bucket's client. Blocks. Raises OperatorNeeded, Permanent."""
        from obstore.exceptions import BaseError

        login, authorities = self._cloud.login(), self._trust.pem()
        known = self._stores.get(bucket)
        if known is not None and known[:2] == (login, authorities):
            return known[2]
        options: dict[str, Any] = {
            "allow_http": any(login.get(name, "").startswith("http://") for name in ("endpoint", "base_url")),
            "connect_timeout": f"{self._limits.connect:g}s",
            "timeout": f"{self._limits.total:g}s",
        }
        if authorities:
            options["root_certificate"] = authorities
        retries = {"max_retries": 1}  # the agent tries again itself
        try:
            store = self._cloud.store(bucket, login, {"client_options": options, "retry_config": retries})
        except (BaseError, ValueError) as error:
            message = f"no {self._cloud.bucket.lower()} of {self._cloud.name}: {_words(error)[:200]}"
            raise Permanent("UrlInvalid", message, where=where) from None
        self._stores[bucket] = login, authorities, store
        while len(self._stores) > _CLIENTS:
            del self._stores[next(iter(self._stores))]
        return store

    @contextmanager
    def telling(self, where: str) -> Iterator[None]:
        """Tell the library's errors as failures."""
        from obstore import exceptions as problems

        name = self._cloud.name
        try:
            yield
        except problems.NotModifiedError:
            raise
        except (problems.NotFoundError, FileNotFoundError):  # the library raises either
            raise Permanent(
                "ArtifactNotFound",
                f"{name} has no such object",
                where=where,
                remedy="upload it, or correct the URL",
            ) from None
        except (problems.PermissionDeniedError, problems.UnauthenticatedError):
            raise OperatorNeeded(
                "ArtifactDenied",
                f"{name} refuses",
                where=where,
                remedy=f"give this agent credentials that may read it ({self._cloud.flag})",
            ) from None
        except problems.InvalidPathError:
            raise Permanent("UrlInvalid", f"not a key of {name}", where=where) from None
        except TimeoutError:
            raise Transient("ArtifactTimeout", f"{name} fell silent", where=where) from None
        except problems.BaseError as error:
            raise Transient("ArtifactUnavailable", _words(error)[:300], where=where) from None


def _words(error: Exception) -> str:
    """The first line of what the library says, as far as it is no secret."""
    return secrets.text(str(error).partition("\n")[0])


def read_credentials(path: Path, flag: str) -> str:
    """A file of credentials. Blocks. Raises OperatorNeeded (StorageCredentialsInvalid)."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_FILE)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "not UTF-8 text"
        raise no_credentials(path, flag, text) from None


def no_credentials(path: Path, flag: str, message: str) -> OperatorNeeded:
    """What is wrong with a file of credentials; `message` never quotes it."""
    return OperatorNeeded(
        "StorageCredentialsInvalid", message, where=str(path), remedy=f"correct what {flag} names"
    )
