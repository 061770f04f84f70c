"""What an artifact is, by its content, and the way from its bytes into a tree.

Larger ones are inflated in the caller's thread and written in another, a bounded way behind.

bytes ─► compressed? ─► Inflater ─┐
      ├───────────────────────────┴─► tar? ─► TarReader ─► Tree
      │                               └ one plain file ──► Tree, executable
      └► zip? ─► a file beside the tree, until all is there ─► ZipReader ─► Tree
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO

from agent.artifact.archive.headers import BLOCK, ZEROS, looks_like_tar
from agent.artifact.archive.inflate import BZIP2, COMPRESSIONS, GZIP, XZ, ZSTD, Compression, Inflater
from agent.artifact.archive.reader import TarReader
from agent.artifact.archive.refusal import Refused, broken, unsupported
from agent.artifact.archive.tree import Tree, write_all
from agent.artifact.archive.zip import MAGICS, ZipReader
from agent.artifact.inventory import Scribe
from agent.artifact.limits import MIB, Limits
from agent.kit.ahead import Ahead


class Form(StrEnum):
    """What an artifact is expected to be."""

    AUTO = "auto"  # whatever its content says
    ARCHIVE = "archive"  # a tar, compressed or not
    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"
    GZ = "gz"  # one compressed file, and so are the next three
    BZ2 = "bz2"
    XZ = "xz"
    ZST = "zst"
    PLAIN = "plain"  # one file, taken as it is


SINGLE = {Form.GZ: GZIP, Form.BZ2: BZIP2, Form.XZ: XZ, Form.ZST: ZSTD}
_COMPRESSED = {Form.TAR_GZ: GZIP, Form.TAR_BZ2: BZIP2, Form.TAR_XZ: XZ, Form.TAR_ZST: ZSTD, **SINGLE}
_ENDINGS = {kind.name: form.value for form, kind in SINGLE.items()}
# Known by their first bytes, so that they are not taken for programs.
_OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar", b"MSCF": "cab"}
_SMALL = 1 * MIB  # up to here one thread does it all
_AHEAD = 1 * MIB  # unpacked, waiting to be written: still in the caches then
_AS_IS = "set archive: none to place the file as it is"


class Unpacker:
    """Feed it an artifact, then `finish`; `close` it in any case. Raises Refused and OSError.

    Args:
        root: the empty directory to fill; a zip is kept beside it until all of it is there.
        form: what is expected; anything else is refused.
        target: path of the file when the artifact is one plain file.
        strip: leading path components to drop from the entries of an archive.
        check: called between two steps of bounded size; what it raises ends the work.
        scribe: writes down what the tree holds.
        sha256: what the artifact must have, if that is what it will be held against.
    """

    def __init__(
        self,
        root: Path,
        form: Form,
        target: str,
        strip: int,
        limits: Limits,
        check: Callable[[], None] = lambda: None,
        scribe: Scribe | None = None,
        sha256: str = "",
    ) -> None:
        self._sha256 = sha256
        self._form = form
        self._target = target.encode()
        self._limits = limits
        self._check = check
        self._beside = root.parent
        self._tree = Tree(root, strip, limits, scribe)
        self._inflater: Inflater | None = None
        self._reader: TarReader | None = None
        self._zip: IO[bytes] | None = None
        self._outer: bytes | None = b""  # the first bytes as they came, None once they are judged
        self._inner: bytes | None = b""  # the same after decompression
        self._taken = 0
        self._ahead: Ahead[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Unpack what can be unpacked of it; what is wrong with it may be raised later."""
        self._taken += len(data)
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
        if self._ahead is not None:
            self._within(self._ahead.flush)
        if self._zip is not None:
            ZipReader(self._zip.fileno(), self._tree, self._limits, self._check).read()
        if self._inflater is not None:
            self._inflater.finish()
        if self._inner is not None:
            self._look_inside()
        if self._reader is not None:
            self._reader.finish()
        self._tree.finish()
        if not self._tree.entries:
            raise Refused("ArchiveEmpty", "nothing is left after unpacking", remedy="look at `strip`")

    def close(self) -> None:
        """Give all descriptors back, and end the thread."""
        if self._ahead is not None:
            self._ahead.close()
        self._tree.close()
        if self._zip is not None:
            self._zip.close()

    def _begin(self) -> bytes:
        """Judge the first bytes; returns them."""
        head, self._outer = self._outer or b"", None
        if not head:
            raise Refused("ArchiveEmpty", "the artifact is empty")
        if self._form is Form.PLAIN:
            self._take_as_plain(self._sha256)
            return head
        kind = next((kind for kind in COMPRESSIONS if kind.begins(head)), None)
        self._expect(kind, is_zip=head.startswith(MAGICS))
        if kind is not None:
            self._inflater = Inflater(kind, self._limits)
        elif head.startswith(MAGICS):
            self._inner = None
            self._zip = tempfile.TemporaryFile(dir=self._beside, buffering=0)  # noqa: SIM115 - see close
        else:
            for magic, name in _OTHERS.items():
                if head.startswith(magic):
                    raise unsupported(f"{name} is not supported", remedy=f"use tar.gz, or {_AS_IS}")
        return head

    def _expect(self, kind: Compression | None, *, is_zip: bool) -> None:
        """Refuse what is not of the expected form, as far as the first bytes tell."""
        if self._form is Form.AUTO:
            return
        found = "zip" if is_zip else f"compressed with {kind.name}" if kind else "not compressed"
        wanted = _COMPRESSED.get(self._form)
        if self._form is Form.ZIP:
            if not is_zip:
                raise broken("expected a zip archive, but this is not zip")
        elif is_zip and self._form not in SINGLE:
            raise broken("expected a tar archive, but this is zip")
        elif wanted is not None and kind is not wanted:
            what = "one compressed file" if self._form in SINGLE else f"a {self._form} archive"
            raise broken(f"expected {what}, but this is not {wanted.name}: it is {found}")
        elif self._form is Form.TAR and kind is not None:
            raise broken(f"expected a tar archive, but this one is {found}")

    def _decompress(self, data: bytes) -> None:
        if self._zip is not None:
            self._check()
            write_all(self._zip.fileno(), data)
        elif self._inflater is None:
            self._within(lambda: self._hand_on(data))
        else:
            inflated = self._inflater.feed(data)
            self._within(lambda: self._hand_all_on(inflated))

    def _hand_all_on(self, inflated: Iterator[bytes]) -> None:
        for piece in inflated:
            self._hand_on(piece)

    def _hand_on(self, data: bytes) -> None:
        """To the writing end: in a thread of its own from some size on, so that both take a core."""
        if self._ahead is None and self._taken > _SMALL:
            self._ahead = Ahead("artifact-write", self._consume, _AHEAD)
        if self._ahead is None:
            self._consume(data)
        else:
            self._check()
            self._ahead.put(data, len(data))

    def _within(self, work: Callable[[], None]) -> None:
        """Name the entry in which the archive turned out to be damaged."""
        try:
            try:
                work()
            except Refused:
                if self._ahead is not None:
                    self._ahead.flush()  # whatever is wrong before that counts first, and the name is right
                raise
        except Refused as refused:
            if self._inflater is None:
                raise
            entry = self._reader.entry if self._reader is not None else b""
            raise refused.within(entry) from None

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
        is_tar = looks_like_tar(head[:BLOCK])
        if self._form in SINGLE:
            if is_tar:
                remedy = f"set archive: tar.{self._form}, or leave it out"
                raise unsupported("expected one compressed file, but this holds a tar archive", remedy=remedy)
            self._take_as_plain("")
            self._tree.write(head)
        elif is_tar:
            self._reader = TarReader(self._tree, self._limits)
            self._reader.feed(head)
        elif head[:BLOCK] == ZEROS:
            raise Refused("ArchiveEmpty", "an archive without entries")
        elif self._form is not Form.AUTO:
            raise broken("expected a tar archive, but the content is something else")
        elif self._inflater is not None:
            name = self._inflater.kind.name
            remedy = f"{_AS_IS}, or archive: {_ENDINGS[name]} to place what is in it"
            raise unsupported(f"{name} that holds no tar archive", remedy=remedy)
        else:
            self._take_as_plain(self._sha256)
            self._tree.write(head)

    def _take_as_plain(self, sha256: str) -> None:
        self._inner = None
        self._tree.plain(self._target, sha256)
