"""What an artifact is, by its content, and the way from its bytes into a tree.

bytes ─► gzip? ─► Gunzip ─┐
      └───────────────────┴─► tar? ─► TarReader ─► Tree
                              └ one plain file ──► Tree, executable
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from agent.artifact.archive.headers import BLOCK, ZEROS, looks_like_tar
from agent.artifact.archive.inflate import MAGIC, Gunzip
from agent.artifact.archive.reader import TarReader
from agent.artifact.archive.refusal import Refused, broken, unsupported
from agent.artifact.archive.tree import Tree
from agent.artifact.limits import Limits


class Form(StrEnum):
    """What an artifact is expected to be."""

    AUTO = "auto"  # whatever its content says
    ARCHIVE = "archive"  # a tar, compressed or not
    TAR = "tar"
    TAR_GZ = "tar.gz"
    PLAIN = "plain"  # one file, taken as it is


# Known by their first bytes, so that they are not taken for programs.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
_AS_IS = "set archive: none to place the file as it is"


class Unpacker:
    """Feed it an artifact, then `finish`; `close` it in any case. Raises Refused and OSError.

    Args:
        root: the empty directory to fill.
        form: what is expected; anything else is refused.
        target: path of the file when the artifact is one plain file.
        strip: leading path components to drop from the entries of an archive.
        check: called between two steps of bounded size; what it raises ends the work.
    """

    def __init__(
        self,
        root: Path,
        form: Form,
        target: str,
        strip: int,
        limits: Limits,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._form = form
        self._target = target.encode()
        self._limits = limits
        self._check = check
        self._tree = Tree(root, strip, limits)
        self._gunzip: Gunzip | None = None
        self._reader: TarReader | None = None
        self._outer: bytes | None = b""  # the first bytes as they came, None once they are judged
        self._inner: bytes | None = b""  # the same after decompression

    def feed(self, data: bytes) -> None:
        """Unpack what can be unpacked of it."""
        if self._outer is not None:
            self._outer += data
            if len(self._outer) < BLOCK:
                return
            data = self._begin()
        self._decompress(data)

    def finish(self) -> None:
        """There is no more: the tree is whole, or Refused is raised."""
        if self._outer is not None:
            self._decompress(self._begin())
        if self._gunzip is not None:
            self._gunzip.finish()
        if self._inner is not None:
            self._look_inside()
        if self._reader is not None:
            self._reader.finish()
        self._tree.finish()
        if not self._tree.entries:
            raise Refused("ArchiveEmpty", "nothing is left after unpacking", remedy="look at `strip`")

    def close(self) -> None:
        """Give all descriptors back."""
        self._tree.close()

    def _begin(self) -> bytes:
        """Judge the first bytes; returns them."""
        head, self._outer = self._outer or b"", None
        if not head:
            raise Refused("ArchiveEmpty", "the artifact is empty")
        if self._form is Form.PLAIN:
            self._take_as_plain()
        elif head.startswith(MAGIC):
            if self._form is Form.TAR:
                raise broken("expected a tar archive, but this one is compressed with gzip")
            self._gunzip = Gunzip(self._limits)
        elif self._form is Form.TAR_GZ:
            raise broken("expected a tar.gz archive, but this is not gzip")
        else:
            for magic, name in _OTHERS.items():
                if head.startswith(magic):
                    raise unsupported(f"{name} is not yet supported", remedy=f"use tar.gz, or {_AS_IS}")
        return head

    def _decompress(self, data: bytes) -> None:
        if self._gunzip is None:
            self._consume(data)
            return
        for piece in self._gunzip.feed(data):
            self._consume(piece)

    def _consume(self, data: bytes) -> None:
        self._check()
        if self._inner is not None:
            self._inner += data
            if len(self._inner) >= BLOCK:
                self._look_inside()
        elif self._reader is not None:
            self._reader.feed(data)
        else:
            self._tree.write(data)

    def _look_inside(self) -> None:
        """Judge the first decompressed bytes, and pass them on."""
        head, self._inner = self._inner or b"", None
        if looks_like_tar(head[:BLOCK]):
            self._reader = TarReader(self._tree, self._limits)
            self._reader.feed(head)
        elif head[:BLOCK] == ZEROS:
            raise Refused("ArchiveEmpty", "an archive without entries")
        elif self._form is not Form.AUTO:
            raise broken("expected a tar archive, but the content is something else")
        elif self._gunzip is not None:
            raise unsupported("gzip that holds no tar archive is not supported", remedy=_AS_IS)
        else:
            self._take_as_plain()
            self._tree.write(head)

    def _take_as_plain(self) -> None:
        self._inner = None
        self._tree.plain(self._target)
