"""Reading a pack, gitformat-pack(5): one pass over the bytes finds, checks and names every object.

Why not dulwich's own reader: it inflates everything three times on the way into a memory store, and
nothing bounds what a small hostile pack grows to. Here every size is known before it is allocated:
each object's, each delta's result, and the sum of all that is inflated. What was inflated last is
kept, up to a budget, so a small pack is inflated once and a large one never sits in memory.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
import zlib
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from agent.source.git.pktline import Garbled
from agent.source.git.spool import Buffer, TooLarge

OFS_DELTA, REF_DELTA = 6, 7
TYPES = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
_HEADER = 12
_SLICE = 1 << 16  # compressed bytes handed to zlib at once


@dataclass(frozen=True, slots=True)
class PackLimits:
    """How much a pack may hold. Sizes in bytes.

    A state repository holds configuration: these are far above it, and below what would hurt a host.
    """

    size: int = 256 << 20  # as it travels
    objects: int = 200_000
    object: int = 100 << 20  # one object, inflated; what the large forges accept for a file
    inflated: int = 1 << 30  # all that is inflated while indexing
    kept: int = 32 << 20  # inflated content kept in memory


DEFAULT_LIMITS = PackLimits()


def object_id(kind: int, content: bytes, object_format: str) -> str:
    """The id of an object: the hash over its header and content, in hexadecimal."""
    digest = hashlib.new(object_format, TYPES[kind] + b" %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


class Pack:
    """The objects of one pack: `transport.Objects`.

    Args:
        data: the whole pack; a mapping is closed by `close`.
        object_format: sha1 or sha256.
        shallow: commits whose parents were left out on purpose.
        stop: set by another thread to give up (InterruptedError).

    Raises Garbled, and TooLarge when a limit is exceeded. Blocks: call it in a thread.
    """

    def __init__(
        self,
        data: Buffer,
        object_format: str,
        *,
        shallow: AbstractSet[str] = frozenset(),
        limits: PackLimits = DEFAULT_LIMITS,
        stop: threading.Event | None = None,
    ) -> None:
        self.object_format = object_format
        self.shallow = frozenset(shallow)
        self._data = data
        self._limits = limits
        self._stop = stop
        self._id_length = hashlib.new(object_format, usedforsecurity=False).digest_size
        self._entries: dict[int, tuple[int, int, int]] = {}  # offset: content at, size, offset of base or 0
        self._kinds: dict[int, int] = {}  # offset: type, once it is known
        self._offsets: dict[str, int] = {}  # id: offset
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_size = 0
        self._budget: int | None = limits.inflated  # bytes that indexing may still inflate; None after it
        self._lock = threading.Lock()
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, oid: str) -> tuple[int, bytes]:
        """Type and content of an object. Raises KeyError."""
        with self._lock:
            offset = self._offsets[oid]
            return self._kinds[offset], self._content(offset)

    def close(self) -> None:
        """Forget everything; idempotent."""
        with self._lock:
            self._offsets.clear()
            self._entries.clear()
            self._kept.clear()
            data, self._data = self._data, b""
            if isinstance(data, mmap.mmap):
                data.close()

    def _index(self) -> None:
        end = len(self._data) - self._id_length
        if end < _HEADER or self._data[:4] != b"PACK" or self._data[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise Garbled("what came is not a pack")
        digest = hashlib.new(self.object_format, usedforsecurity=False)
        with memoryview(self._data) as view:
            digest.update(view[:end])
        if digest.digest() != self._data[end:]:
            raise Garbled("the pack is damaged: its checksum is wrong")
        count = int.from_bytes(self._data[8:12], "big")
        if count > self._limits.objects:
            raise TooLarge(f"it has {count} objects, more than {self._limits.objects}")
        waiting: dict[int | bytes, list[int]] = {}
        offset = _HEADER
        for _ in range(count):
            if self._stop is not None and self._stop.is_set():
                raise InterruptedError
            offset = self._one(offset, end, waiting)
        if offset != end:
            raise Garbled("the pack goes on after its last object")
        if waiting:
            raise Garbled("the pack holds deltas whose base is not in it")
        self._budget = None

    def _one(self, offset: int, end: int, waiting: dict[int | bytes, list[int]]) -> int:
        """Index the object at `offset` and the deltas that waited for it; returns where it ends."""
        kind, size, at = self._header(offset, end)
        base: int | bytes | None = None
        if kind == OFS_DELTA:
            distance, at = self._distance(at, end)
            base = offset - distance
            if base not in self._entries:
                raise Garbled("the pack holds a delta against no object")
        elif kind == REF_DELTA:
            base = bytes(self._data[at : at + self._id_length])
            at += self._id_length
        elif kind not in TYPES:
            raise Garbled(f"the pack holds an object of type {kind}")
        content, after = self._inflate(at, end, size)
        self._entries[offset] = (at, size, 0)
        if base is not None:
            base_offset = base if isinstance(base, int) else self._offsets.get(base.hex(), 0)
            if base_offset not in self._kinds:
                waiting.setdefault(base, []).append(offset)
                return after
            self._entries[offset] = (at, size, base_offset)
            kind, content = self._kinds[base_offset], self._apply(self._content(base_offset), content)
        oid = self._settle(offset, kind, content)
        if waiting:
            self._settle_waiting(offset, oid, waiting)
        return after

    def _settle(self, offset: int, kind: int, content: bytes) -> str:
        oid = object_id(kind, content, self.object_format)
        self._kinds[offset] = kind
        self._offsets[oid] = offset
        self._keep(offset, content)
        return oid

    def _settle_waiting(self, base: int, oid: str, waiting: dict[int | bytes, list[int]]) -> None:
        """Settle the deltas that waited for the object at `base`, and what waited for them."""
        todo = [(base, oid)]
        while todo:
            base, oid = todo.pop()
            for offset in waiting.pop(base, []) + waiting.pop(bytes.fromhex(oid), []):
                at, size, _ = self._entries[offset]
                self._entries[offset] = (at, size, base)
                todo.append((offset, self._settle(offset, self._kinds[base], self._content(offset))))

    def _content(self, offset: int) -> bytes:
        """What is at `offset`, from memory or inflated again, with the chain of its deltas applied."""
        chain = []
        while (content := self._kept.get(offset)) is None:
            at, size, base = self._entries[offset]
            chain.append(offset)
            if not base:
                content, _ = self._inflate(at, len(self._data), size)
                self._keep(chain.pop(), content)
                break
            offset = base
        else:
            self._kept.move_to_end(offset)
        for offset in reversed(chain):
            at, size, _ = self._entries[offset]
            delta, _ = self._inflate(at, len(self._data), size)
            content = self._apply(content, delta)
            self._keep(offset, content)
        return content

    def _apply(self, base: bytes, delta: bytes) -> bytes:
        from dulwich.errors import ApplyDeltaError  # here, so that a thread pays for the loading
        from dulwich.pack import apply_delta

        size = _delta_result(delta)
        self._spend(size)
        try:
            return b"".join(apply_delta(base, delta))
        except ApplyDeltaError as error:
            raise Garbled("the pack holds a delta that does not fit its base") from error

    def _keep(self, offset: int, content: bytes) -> None:
        if offset in self._kept or len(content) > self._limits.kept:
            return
        self._kept[offset] = content
        self._kept_size += len(content)
        while self._kept_size > self._limits.kept:
            _, dropped = self._kept.popitem(last=False)
            self._kept_size -= len(dropped)

    def _spend(self, size: int) -> None:
        if size > self._limits.object:
            raise TooLarge(f"it has an object of {size} bytes, more than {self._limits.object}")
        if self._budget is not None:
            self._budget -= size
            if self._budget < 0:
                raise TooLarge(f"it inflates to more than {self._limits.inflated} bytes")

    def _header(self, offset: int, end: int) -> tuple[int, int, int]:
        """Type, size and where the rest begins."""
        byte = self._byte(offset, end)
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            offset += 1
            byte = self._byte(offset, end)
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 60:
                raise Garbled("the pack holds an object of absurd size")
        return kind, size, offset + 1

    def _distance(self, at: int, end: int) -> tuple[int, int]:
        """How far back the base of a delta is, and where the rest begins."""
        byte = self._byte(at, end)
        distance = byte & 0x7F
        while byte & 0x80:
            at += 1
            byte = self._byte(at, end)
            distance = (distance + 1) << 7 | byte & 0x7F
            if distance > len(self._data):
                raise Garbled("the pack holds a delta against no object")
        return distance, at + 1

    def _byte(self, at: int, end: int) -> int:
        if at >= end:
            raise Garbled("the pack ends in the middle of an object")
        return self._data[at]

    def _inflate(self, at: int, end: int, size: int) -> tuple[bytes, int]:
        """The `size` bytes deflated at `at`, and where they end."""
        self._spend(size)
        engine = zlib.decompressobj()
        # Small slices for small objects: zlib copies what it was handed beyond the end of its stream.
        step = min(_SLICE, size + (size >> 8) + 64)
        parts: list[bytes] = []
        room = size + 1  # one more than allowed, so that too much is seen
        try:
            while not engine.eof:
                piece = self._data[at : min(at + step, end)]
                if not piece:
                    raise Garbled("the pack ends in the middle of an object")
                at += len(piece)
                out = engine.decompress(piece, room)
                parts.append(out)
                room -= len(out)
                if room < 1 or engine.unconsumed_tail:
                    raise Garbled("the pack holds an object larger than it says")
        except zlib.error as error:
            raise Garbled("the pack holds an object that cannot be inflated") from error
        if room != 1:
            raise Garbled("the pack holds an object smaller than it says")
        return (parts[0] if len(parts) == 1 else b"".join(parts)), at - len(engine.unused_data)


def _delta_result(delta: bytes) -> int:
    """The size that a delta says its result has: the second of its two leading numbers."""
    at = value = shift = 0
    for _ in range(2):
        value = shift = 0
        while True:
            if at >= len(delta) or shift > 60:
                raise Garbled("the pack holds a delta without sizes")
            byte = delta[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
    return value
