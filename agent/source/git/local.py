"""A repository on this machine (file://), bare or not, read in place by dulwich.

Nothing is copied: `LocalObjects` reads what it is asked for from the repository's own packs and loose
objects, and checks each by its id. The repository is opened anew for each use, so one that was moved,
replaced or repacked meanwhile is no special case. A thread that hangs on a dead network file system is
left behind at the deadline.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.source.git.address import Address
from agent.source.git.pack import object_id
from agent.source.git.pktline import Garbled
from agent.source.git.protocol import Ref
from agent.source.git.threads import abandonable

if TYPE_CHECKING:
    from dulwich.repo import Repo


class LocalRepository:
    """`transport.Repository` for file:// URLs."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @property
    def where(self) -> str:
        """The URL."""
        return self._address.shown

    async def refs(self, names: Collection[str]) -> Mapping[str, Ref]:
        """What these full names (or HEAD) point to."""
        return await asyncio.to_thread(self._refs, names)

    async def take(self, want: str, *, depth: int, trees: bool = True) -> LocalObjects:  # noqa: ARG002
        """The repository's objects; `depth` and `trees` do not matter, as nothing is copied."""
        return await abandonable(lambda: self._take(want), LocalObjects.close)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    def _refs(self, names: Collection[str]) -> dict[str, Ref]:
        from dulwich.errors import RefFormatError
        from dulwich.objects import Tag
        from dulwich.refs import Ref as Name

        found = {}
        with self._open() as repo:
            for name in names:
                try:
                    oid = repo.refs[Name(name.encode())]
                    end, peeled = oid, repo.object_store[oid]
                    while isinstance(peeled, Tag):
                        _, end = peeled.object
                        peeled = repo.object_store[end]
                except (KeyError, RefFormatError):  # no such ref, or one whose object is gone
                    continue
                except Exception as error:  # dulwich has many words for damage
                    raise Transient("GitProtocol", f"{name} cannot be read", where=self.where) from error
                found[name] = Ref(name, oid.decode(), end.decode() if end != oid else "")
        return found

    def _take(self, want: str) -> LocalObjects:
        objects = LocalObjects(self._open())
        try:
            objects.get(want)
        except KeyError:
            objects.close()
            raise Transient("CommitNotFound", f"{want} is not in the repository", where=self.where) from None
        except Garbled as error:
            objects.close()
            raise Transient("GitProtocol", str(error), where=self.where) from error
        return objects

    def _open(self) -> Repo:
        from dulwich.errors import NotGitRepository
        from dulwich.repo import Repo, UnsupportedExtension, UnsupportedVersion

        try:
            return Repo(self._address.path)
        except (NotGitRepository, FileNotFoundError, NotADirectoryError):
            raise OperatorNeeded(
                "RepositoryNotFound",
                "there is no Git repository",
                where=self.where,
                remedy="check the path (--repo), and that it is mounted",
            ) from None
        except PermissionError as error:
            raise OperatorNeeded(
                "GitAuth",
                "the repository cannot be read: permission denied",
                where=self.where,
                remedy="let the agent's user read it",
            ) from error
        except (UnsupportedExtension, UnsupportedVersion) as error:
            raise OperatorNeeded(
                "GitServerUnsupported", f"the repository's format is not supported: {error}", where=self.where
            ) from error
        except Exception as error:  # dulwich has many words for damage
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Failure:
        words = error.strerror if isinstance(error, OSError) else type(error).__name__
        return Transient("GitUnavailable", f"the repository cannot be read: {words}", where=self.where)


class LocalObjects:
    """The objects of an open repository: `transport.Objects`."""

    def __init__(self, repo: Repo) -> None:
        self.object_format = repo.object_format.name
        self.shallow = frozenset(oid.decode() for oid in repo.get_shallow())
        self._repo: Repo | None = repo
        self._lock = threading.Lock()

    def get(self, oid: str) -> tuple[int, bytes]:
        """Type and content, checked. Raises KeyError, Garbled."""
        from dulwich.objects import ObjectID

        with self._lock:
            if self._repo is None:
                raise KeyError(oid)
            try:
                kind, content = self._repo.object_store.get_raw(ObjectID(oid.encode()))
            except KeyError:
                raise
            except Exception as error:  # dulwich has many words for damage
                raise Garbled(f"the object {oid} cannot be read: {type(error).__name__}") from error
        if object_id(kind, content, self.object_format) != oid:
            raise Garbled(f"the object {oid} is damaged")
        return kind, content

    def close(self) -> None:
        """Close the repository's files."""
        with self._lock:
            repo, self._repo = self._repo, None
            if repo is not None:
                repo.close()
