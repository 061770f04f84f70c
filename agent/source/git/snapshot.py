"""One commit at hand: what it says, its files, its history as far as it was fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from agent.domain.errors import Transient
from agent.source.git.export import DIRECTORY, FILES, export_tree
from agent.source.git.history import Passage, passage
from agent.source.git.objects import CommitInfo, peel, read_commit, read_tree
from agent.source.git.packing import pack
from agent.source.git.pktline import Garbled
from agent.source.git.threads import stoppable
from agent.source.git.transport import Objects

T = TypeVar("T")


class Snapshot:
    """A commit of the state repository. Close it when its files are out; a context manager.

    Attributes:
        commit: its full id.
        tag: id of the annotated tag it was reached by, "" for none.
        tree: the id of its tree: equal trees are equal states.
        parents: ids of its parents, whether they are at hand or not.
        author, time, subject: see `objects.CommitInfo`.
    """

    def __init__(self, objects: Objects, commit: str, where: str) -> None:
        """Take over `objects`; `commit` may be an annotated tag. Blocks for one object; may raise Failure."""
        self._objects = objects
        self._where = where
        try:
            self.commit = self._reading(lambda: peel(objects, commit))
            info: CommitInfo = self._reading(lambda: read_commit(objects, self.commit))
        except BaseException:
            objects.close()
            raise
        self.tag = commit if commit != self.commit else ""
        self.tree = info.tree
        self.parents = info.parents
        self.author = info.author
        self.time = info.time
        self.subject = info.subject

    def __repr__(self) -> str:
        return f"<Snapshot {self.commit[:12]} of {self._where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def export(self, directory: Path) -> None:
        """Write the tree into `directory`, which is made or is empty; whole, or it is gone again.

        Raises Permanent("TreeRefused", "TreeTooLarge"), OperatorNeeded("DiskFull", "ExportFailed"),
        Transient("GitProtocol").
        """
        await stoppable(
            lambda stop: self._reading(lambda: export_tree(self._objects, self.tree, directory, stop))
        )

    @property
    def object_format(self) -> str:
        """What ids are made with: sha1 or sha256."""
        return self._objects.object_format

    def raw(self, oid: str) -> bytes:
        """The content of an object, as it is hashed and signed. Blocks."""
        return self._reading(lambda: self._objects.get(oid)[1])

    def passage(self, old: str) -> Passage:
        """From the commit `old` to this one, as far as history is at hand. Blocks. Raises TooLong."""
        return self._reading(lambda: passage(self._objects, self.commit, old))

    def read(self, path: str) -> bytes | None:
        """One file's content; None when there is no regular file of that path. Blocks for its size."""
        return self._reading(lambda: self._find(path.encode("utf-8", "surrogateescape")))

    def packed(self, path: str) -> Iterator[bytes]:
        """A file, or a directory as a tar, see `packing.pack`. Each step blocks, may raise Failure."""
        pieces = pack(self._objects, self.tree, path, self._where)
        while piece := self._reading(lambda: next(pieces, b"")):
            yield piece

    def log(self, count: int) -> list[str]:
        """This commit and its first parents, newest first, at most `count`, as far as they are at hand.

        Blocks for one small object each.
        """
        return self._reading(lambda: self._history(count))

    def close(self) -> None:
        """Release files and memory; idempotent."""
        self._objects.close()

    def _find(self, path: bytes) -> bytes | None:
        oid, mode = self.tree, DIRECTORY
        for part in path.split(b"/"):
            if mode != DIRECTORY:
                return None
            for name, entry_mode, entry in read_tree(self._objects, oid):
                if name == part:
                    oid, mode = entry, entry_mode
                    break
            else:
                return None
        return self._objects.get(oid)[1] if mode in FILES else None

    def _history(self, count: int) -> list[str]:
        found = [self.commit]
        parents = self.parents
        while parents and len(found) < count and found[-1] not in self._objects.shallow:
            try:
                info = read_commit(self._objects, parents[0])
            except KeyError:
                break
            found.append(parents[0])
            parents = info.parents
        return found

    def _reading(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except KeyError as error:
            message = f"the repository lacks the object {error.args[0]}"
            raise Transient("GitProtocol", message, where=self._where) from error
        except Garbled as error:
            raise Transient(
                "GitProtocol", f"the repository is damaged: {error}", where=self._where
            ) from error
