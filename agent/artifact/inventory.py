r"""What a tree of the store holds, written down while it was unpacked: the measure of every later look.

A file of records, each three fields that end with NUL: a head, a path, and where the path leads.

    f MODE SIZE MTIME INODE CTIME SHA256 \0 PATH \0 \0      a file; times in nanoseconds, modes in octal
    h \0 PATH \0 EARLIER \0                                 one more name of an earlier file
    l \0 PATH \0 TARGET \0                                  a symbolic link
    d \0 PATH \0 \0                                         a directory
    end SHA256 \0 \0 \0                                     of all bytes before: the inventory is whole

Inode and the two times say that nobody touched a file since, for one lstat(2) instead of a read of it all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BUFFER = 256 * 1024
_END = b"end "
_FILE = b"f %o %d %d %d %d %b"
FILE, HARD, LINK, DIRECTORY = b"f", b"h", b"l", b"d"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a path was when it was written; everything but `kind` is for files, `target` for links."""

    kind: bytes
    mode: int = 0
    size: int = 0
    mtime: int = 0
    inode: int = 0
    ctime: int = 0
    digest: str = ""
    target: bytes = b""

    @property
    def head(self) -> bytes:
        """The first field of its record."""
        if self.kind != FILE:
            return self.kind
        return _FILE % (self.mode, self.size, self.mtime, self.inode, self.ctime, self.digest.encode())


def seen(info: os.stat_result, digest: str) -> Entry:
    """The entry of a file that was just written, or found to be right."""
    return Entry(
        FILE, info.st_mode & 0o7777, info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns, digest
    )


def file_of(entries: Mapping[bytes, Entry], path: bytes) -> Entry:
    """The file that `path` is a name of. Raises LookupError when it is none."""
    entry = entries[path]
    for _ in range(len(entries)):
        if entry.kind != HARD:
            break
        entry = entries[entry.target]
    if entry.kind != FILE:
        raise LookupError(path)
    return entry


class Scribe:
    """Writes an inventory beside the tree it is of. `close` it in any case. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "wb", buffering=_BUFFER)  # noqa: SIM115 - see close
        self._hash = hashlib.sha256()

    def add(self, path: bytes, entry: Entry) -> None:
        """One more."""
        self._add(entry.head + b"\0" + path + b"\0" + entry.target + b"\0")

    def add_file(self, path: bytes, info: os.stat_result, digest: str) -> None:
        """The same for `seen(info, digest)`, without making an entry of it: of these there are many."""
        numbers = info.st_mode & 0o7777, info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns
        self._add(_FILE % (*numbers, digest.encode()) + b"\0" + path + b"\0\0")

    def _add(self, record: bytes) -> None:
        self._hash.update(record)
        self._file.write(record)

    def end(self, *, sync: bool = False) -> None:
        """That was all. It is on disk when `sync` says so, or whoever publishes the tree sees to it."""
        self._file.write(_END + self._hash.hexdigest().encode() + b"\0\0\0")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give the descriptor back; what was not written by `end` is not wanted. May be called again."""
        with contextlib.suppress(OSError):  # of what is still buffered
            self._file.close()


def beside(tree: Path) -> Path:
    """Where the inventory of a tree is written, while that is being written itself."""
    return tree.with_name(f"{tree.name}.inventory")


def discard(scribe: Scribe) -> None:
    """Remove what was written so far. Raises OSError."""
    scribe.path.unlink(missing_ok=True)
    scribe.close()


def read(path: Path) -> dict[bytes, Entry] | None:
    """An inventory: path to entry, in the order of writing; None when there is none, or no whole one.

    Raises OSError for what cannot be read at all.
    """
    try:
        with open(path, "rb") as file:
            return _whole(file)
    except FileNotFoundError:
        return None


def write(path: Path, entries: Mapping[bytes, Entry], *, sync: bool = True) -> None:
    """Write an inventory whole, in place of what is there. Blocks. Raises OSError."""
    scribe = Scribe(path.with_name(f".{path.name}.tmp"))
    try:
        for name, entry in entries.items():
            scribe.add(name, entry)
        scribe.end(sync=sync)
    finally:
        scribe.close()
    os.rename(scribe.path, path)


def _whole(file: BinaryIO) -> dict[bytes, Entry] | None:
    digest = hashlib.sha256()
    entries: dict[bytes, Entry] = {}
    for head, path, target in _records(file):
        if head.startswith(_END):
            return entries if head[len(_END) :] == digest.hexdigest().encode() else None
        digest.update(head + b"\0" + path + b"\0" + target + b"\0")
        entry = _entry(head, target)
        if entry is None:
            return None
        entries[path] = entry
    return None


def _records(file: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
    rest = b""
    while data := file.read(_BUFFER):
        *fields, rest = (rest + data).split(b"\0")
        whole = len(fields) - len(fields) % 3
        for at in range(0, whole, 3):
            yield fields[at], fields[at + 1], fields[at + 2]
        rest = b"\0".join([*fields[whole:], rest])


def _entry(head: bytes, target: bytes) -> Entry | None:
    if head in (HARD, LINK, DIRECTORY):
        return Entry(head, target=target)
    parts = head.decode("ascii", "replace").split(" ")
    try:
        kind, mode, size, mtime, inode, ctime, digest = parts
        if kind != "f":
            return None
        return Entry(FILE, int(mode, 8), int(size), int(mtime), int(inode), int(ctime), digest)
    except ValueError:
        return None
