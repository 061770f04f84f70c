"""Git objects and packs made by hand, for those that the git program would refuse to make."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

from agent.source.git.pack import object_id

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
OFS_DELTA, REF_DELTA = 6, 7


class MemoryObjects:
    """Objects in a dictionary: `agent.source.git.transport.Objects`."""

    object_format = "sha1"
    shallow: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.content: dict[str, tuple[int, bytes]] = {}
        self.closed = False

    def add(self, kind: int, content: bytes) -> str:
        """Keep an object; returns its id."""
        oid = object_id(kind, content, "sha1")
        self.content[oid] = (kind, content)
        return oid

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree of (mode in octal, name, id), in the order given."""
        return self.add(
            TREE, b"".join(m.encode() + b" " + n + b"\0" + bytes.fromhex(i) for m, n, i in entries)
        )

    def get(self, oid: str) -> tuple[int, bytes]:
        return self.content[oid]

    def close(self) -> None:
        self.closed = True


def varint(kind: int, size: int) -> bytes:
    """The head of an object in a pack."""
    first, size = kind << 4 | size & 15, size >> 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    out.append(first)
    return bytes(out)


def number(value: int) -> bytes:
    """A size at the beginning of a delta."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def entry(kind: int, content: bytes, base: bytes = b"", *, size: int | None = None) -> bytes:
    """One object of a pack; `base` is the id (REF_DELTA) or distance byte (OFS_DELTA)."""
    return varint(kind, len(content) if size is None else size) + base + zlib.compress(content)


def pack(entries: Iterable[bytes], *, count: int | None = None) -> bytes:
    """A pack with its right checksum."""
    parts = list(entries)
    head = b"PACK" + (2).to_bytes(4, "big") + (len(parts) if count is None else count).to_bytes(4, "big")
    body = head + b"".join(parts)
    return body + hashlib.sha1(body).digest()
