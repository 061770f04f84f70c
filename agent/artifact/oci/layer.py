r"""One layer of an image becomes a directory of the store (OCI Image Specification 1.1, "Image Layer").

    layers/NAME/tree/...     the layer's entries
    layers/NAME/marks        what it takes away from the layers below: `h PATH\0` a file or directory,
                             `o PATH\0` all that a directory had (opaque)

Taken as in every archive (see `archive.tree`), but for three things that images do: absolute links mean
the image's root and are made relative, set-id bits are dropped, and where links lead is checked when the
layers have been merged.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from threading import Event, Lock

from agent.artifact.archive.headers import BLOCK, Header
from agent.artifact.archive.inflate import COMPRESSIONS, Inflater
from agent.artifact.archive.reader import Piece, TarReader
from agent.artifact.archive.refusal import Refused, broken, harmful, too_large
from agent.artifact.archive.tree import Tree, components
from agent.artifact.inspection import inspect
from agent.artifact.inventory import Scribe, beside, discard
from agent.artifact.limits import Limits
from agent.artifact.oci.manifest import Layer
from agent.artifact.pipeline import Stopped
from agent.artifact.store import Store
from agent.domain.errors import Permanent
from agent.kit.files import remove_tree

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
HIDDEN, OPAQUE = b"h ", b"o "


class Budget:
    """What all layers of one image may become together. Used by several threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self._entries = 0
        self._lock = Lock()

    def spend(self, size: int, entry: bytes) -> None:
        """One more entry, of so many bytes. Raises Refused."""
        with self._lock:
            self._bytes += size
            self._entries += 1
            if self._bytes > self._limits.unpacked:
                raise too_large(f"the layers unpack to more than {self._limits.unpacked} bytes", entry)
            if self._entries > self._limits.entries:
                raise too_large(f"the layers have more than {self._limits.entries} entries", entry)


class LayerTree(Tree):
    """Writes the entries of one layer; `marks` is what it takes away from those below."""

    def __init__(self, root: Path, limits: Limits, budget: Budget, scribe: Scribe) -> None:
        super().__init__(root, 0, limits, scribe)
        self._budget = budget
        self._marks: list[bytes] = []
        self._marked = 0

    @property
    def marks(self) -> bytes:
        """The content of the file `marks`."""
        return b"".join(self._marks)

    def directory(self, header: Header) -> None:
        """See Tree."""
        self._budget.spend(0, header.name)
        super().directory(header)

    def begin(self, header: Header) -> None:
        """See Tree; a whiteout is remembered instead."""
        self._budget.spend(header.size, header.name)
        if self._take_mark(header.name):
            self._skipping = True
            return
        header.mode &= 0o1777
        super().begin(header)

    def symlink(self, header: Header) -> None:
        """See Tree; an absolute target is made relative."""
        self._budget.spend(0, header.name)
        if header.link.startswith(b"/"):
            above = len([p for p in components(header.name, header.name, self._limits) if p != b"."]) - 1
            header.link = b"../" * above + (header.link.lstrip(b"/") or b".")
        super().symlink(header)

    def hardlink(self, header: Header) -> None:
        """See Tree; a whiteout may be one (AUFS)."""
        self._budget.spend(0, header.name)
        if not self._take_mark(header.name):
            super().hardlink(header)

    def finish(self) -> None:
        """All entries are there."""
        self._end_file()

    def _take_mark(self, name: bytes) -> bool:
        parts = [p for p in components(name, name, self._limits) if p != b"."]
        if not parts or not parts[-1].startswith(_WHITEOUT):
            return False
        if parts[-1] == _OPAQUE:
            mark = OPAQUE + b"/".join(parts[:-1]) + b"\0"
        else:
            hidden = parts[-1].removeprefix(_WHITEOUT)
            if hidden in (b"", b".", b"..") or hidden.startswith(_WHITEOUT):
                raise harmful("a whiteout of nothing that can be", name)
            mark = HIDDEN + b"/".join([*parts[:-1], hidden]) + b"\0"
        self._marked += len(mark)
        if self._marked > self._limits.links:
            raise too_large(f"more than {self._limits.links} bytes of whiteouts", name)
        self._marks.append(mark)
        return True


class _Content:
    """A layer's bytes, compressed or not, on their way into a tree."""

    def __init__(self, tree: LayerTree, title: str, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._head: bytes | None = None if title else b""
        self._inflater: Inflater | None = None
        self._reader: TarReader | None = None
        if title:
            tree.plain(title.encode())
        else:
            self._reader = TarReader(tree, limits)

    def feed(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if len(self._head) < BLOCK:
                return
            data = self._begin()
        self._decompress(data)

    def finish(self) -> None:
        if self._head is not None:
            self._decompress(self._begin())
        if self._inflater is not None:
            self._inflater.finish()
        if self._reader is not None:
            self._reader.finish()
        self._tree.finish()

    def _begin(self) -> bytes:
        head, self._head = self._head or b"", None
        kind = next((kind for kind in COMPRESSIONS if kind.begins(head)), None)
        self._inflater = Inflater(kind, self._limits) if kind is not None else None
        return head

    def _decompress(self, data: bytes) -> None:
        if self._inflater is None:
            self._consume(data)
        else:
            for piece in self._inflater.feed(data):
                self._consume(piece)

    def _consume(self, data: Piece) -> None:
        if self._reader is not None:
            self._reader.feed(data)
        else:
            self._tree.write(data)


class LayerWork:
    """A `pipeline.Work`: fed with the bytes of a layer, ends with the layer in the store.

    `verified` is called in the thread once the digest is right.
    """

    def __init__(
        self,
        store: Store,
        layer: Layer,
        limits: Limits,
        budget: Budget,
        where: str,
        verified: Callable[[], None],
    ) -> None:
        self._verified = verified
        self._store = store
        self._layer = layer
        self._limits = limits
        self._budget = budget
        self._where = where
        self._algorithm, _, self._expected = layer.digest.partition(":")
        self._hash = hashlib.new(self._algorithm)
        self._temp = store.new_temp()
        self._tree: LayerTree | None = None
        self._content: _Content | None = None
        self._refused: Refused | None = None
        self._scribe: Scribe | None = None
        self._stop = Event()

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Hash and unpack; a refused archive is kept in mind only. Raises OSError, Stopped."""
        for piece in pieces:
            if self._stop.is_set():
                raise Stopped
            self._hash.update(piece)
            self._unpack(piece)

    def finish(self, pieces: Sequence[bytes]) -> None:
        """The last bytes; then judge, sync and publish. Raises Permanent, OSError, Stopped."""
        self.feed(pieces)
        got = self._hash.hexdigest()
        if got != self._expected:
            raise Permanent(
                "ChecksumMismatch",
                f"a layer is {self._algorithm}:{got}, expected {self._layer.digest}",
                where=self._where,
                remedy="push the image again: its registry has a damaged copy",
            )
        self._verified()
        self._unpack(None)
        if self._refused is not None:
            problem = self._refused
            raise Permanent(problem.reason, str(problem), where=self._where, remedy=problem.remedy)
        assert self._tree is not None
        assert self._scribe is not None
        self._tree.close()
        self._scribe.end()
        (self._temp / "marks").write_bytes(self._tree.marks)
        if self._stop.is_set():
            raise Stopped
        self._store.publish_layer(self._temp, name_of(self._layer), self._scribe.path)
        self._scribe.close()

    def discard(self) -> None:
        """Remove all that was written. Raises OSError."""
        if self._tree is not None:
            self._tree.close()
        if self._scribe is not None:
            discard(self._scribe)
        remove_tree(self._temp)

    def stop(self) -> None:
        """See Work."""
        self._stop.set()

    def _unpack(self, piece: bytes | None) -> None:
        """Unpack a piece, or with None its end."""
        if self._refused is not None:
            return
        try:
            if self._tree is None:
                os.mkdir(self._temp, 0o700)
                os.mkdir(self._temp / "tree", 0o755)
                self._scribe = Scribe(beside(self._temp))
                self._tree = LayerTree(self._temp / "tree", self._limits, self._budget, self._scribe)
            if self._content is None:
                self._content = _Content(self._tree, self._layer.title, self._limits)
            if piece is None:
                self._content.finish()
            else:
                self._content.feed(piece)
        except Refused as refused:
            self._refused = refused
        except UnicodeEncodeError:
            self._refused = broken("a file's name is not Unicode")


def name_of(layer: Layer) -> str:
    """The layer's directory in the store."""
    name = layer.digest.replace(":", "-")
    return f"{name}-{hashlib.sha256(layer.title.encode()).hexdigest()[:16]}" if layer.title else name


def whole_layers(store: Store, names: Collection[str]) -> set[str]:
    """Those of the layers that are there, untouched; what is not is taken away. Blocks. Raises OSError."""
    there = set()
    for name in names:
        directory = store.layer(name)
        if not directory.is_dir():
            continue
        if inspect(directory / "tree", store.inventory(name), thorough=False).whole:
            there.add(name)
        else:
            store.discard_layer(name)
    return there
