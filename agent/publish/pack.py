"""A directory or a file as an archive whose bytes are a function of names and contents alone.

Entries are sorted by their bytes; owners, permissions but for "may be executed", hard links, times, the order
on disk and whatever else a machine has a say in are left out. Each file has a time all the same, made of its
content: servers and interpreters tell versions of a file apart by size and time (the ETag of nginx, Python's
compiled modules), and with one time for all they would take the new for the old.

What our unpacker would refuse is refused here, with the same limits.

Compression is left out by default: what gzip and Zstandard make of the same bytes differs between versions of
their libraries, and then the digest would not be that of the content any more. bzip2's has not changed
for two decades. See `compressors`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from agent.artifact.archive.links import Links
from agent.artifact.archive.refusal import Refused, shown
from agent.artifact.archive.tree import components
from agent.artifact.limits import DEFAULTS
from agent.kit.files import sync_directory
from agent.publish import tar
from agent.publish.compressors import Compressor, by_name
from agent.publish.trouble import Trouble

_PIECE = 1 << 20
_WHOLE = 16 << 20  # files up to this size are read once and kept meanwhile
_FIRST_TIME = 315_532_800  # 1980-01-01, the earliest that every kind of archive can hold
_PACKED = (stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG)
_SPAN = 1 << 30  # seconds; up to 2014, which is past everywhere

Tell = Callable[[int, int], None]
"""Told of progress: bytes read, bytes in all."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive on disk. `depends_on` is the library whose version has a say in its bytes, "" for none."""

    path: Path
    sha256: str
    size: int
    entries: int
    depends_on: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes  # in the archive
    path: bytes  # on disk
    kind: bytes
    size: int = 0
    mode: int = 0o755
    link: bytes = b""


def pack(
    source: Path,
    target: Path,
    exclude: Sequence[str] = (),
    tell: Tell = lambda _done, _all: None,
    *,
    root: bool = False,
) -> Packed:
    """Pack what is in the directory `source`, or the one file it is, into the new or replaced file `target`.

    The ending of `target` says how it is compressed: .tar, .tar.zst, .tar.gz or .tar.bz2. Blocks.

    Args:
        source: a directory, whose entries lie at the archive's root, or a regular file, by its name.
        target: appears whole, by rename.
        exclude: patterns of the shell; what fits one is left out, with all that is in it. Without a slash a
            pattern is for names at any depth, otherwise for the whole path.
        tell: see Tell.
        root: it is a system's, as debootstrap(8) makes one: absolute links lead from there and are made
            relative; set-id bits, devices, pipes and sockets are left out.

    Raises Trouble.
    """
    compressor = by_name(target.name)
    try:
        found = _entries(os.fsencode(source), [os.fsencode(one) for one in exclude], root)
        entries = _checked(found, source)
        _refuse_itself(source, target)
        digest, size = _write(entries, target, compressor, tell)
    except OSError as error:
        raise Trouble(f"{error.filename or source}: {error.strerror or error}") from None
    return Packed(target, digest, size, len(entries), compressor.library())


def _entries(source: bytes, exclude: Sequence[bytes], root: bool) -> Iterator[_Entry]:
    """Everything to pack, parents first, sorted. Raises Trouble, OSError."""
    if not stat.S_ISDIR(os.stat(source).st_mode):
        name = os.path.basename(os.path.realpath(source) if source in (b".", b"..") else source)
        yield _entry(name, os.path.realpath(source))
        return
    for entry in _below(source, exclude, root):
        yield _of_root(entry) if root else entry


def _of_root(entry: _Entry) -> _Entry:
    """An entry of a system's root: an absolute link leads from there."""
    if entry.kind != tar.SYMLINK or not entry.link.startswith(b"/"):
        return entry
    return replace(entry, link=b"../" * entry.name.count(b"/") + (entry.link.lstrip(b"/") or b"."))


def _checked(entries: Iterable[_Entry], source: Path) -> list[_Entry]:
    """All of them, for an agent would unpack it. Raises Trouble."""
    if not (found := list(entries)):
        raise Trouble(f"{source}: there is nothing to pack")
    try:
        _check(found)
    except Refused as refused:
        raise Trouble(f"no agent would unpack this: {refused}", refused.remedy) from None
    return found


def _below(source: bytes, exclude: Sequence[bytes], root: bool) -> Iterator[_Entry]:
    pending = [_inside(source, b"", exclude, root)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            continue
        yield entry
        if entry.kind == tar.DIRECTORY:
            pending.append(_inside(entry.path, entry.name + b"/", exclude, root))


def _inside(directory: bytes, prefix: bytes, exclude: Sequence[bytes], root: bool) -> Iterator[_Entry]:
    for name in sorted(os.listdir(directory)):
        whole = prefix + name
        if any(fnmatchcase(whole if b"/" in one else name, one) for one in exclude):
            continue
        path = os.path.join(directory, name)
        if not root or stat.S_IFMT(os.lstat(path).st_mode) in _PACKED:
            yield _entry(whole, path, root)


def _entry(name: bytes, path: bytes, root: bool = False) -> _Entry:
    info = os.lstat(path)
    if stat.S_ISDIR(info.st_mode):
        return _Entry(name, path, tar.DIRECTORY)
    if stat.S_ISLNK(info.st_mode):
        return _Entry(name, path, tar.SYMLINK, mode=0o777, link=os.readlink(path))
    if not stat.S_ISREG(info.st_mode):
        raise Trouble(
            f"{shown(name)} is neither a file, a directory nor a link", "leave it out with --exclude"
        )
    if not root and info.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Trouble(f"{shown(name)} has a set-user-id or set-group-id bit, which no release may have")
    mode = 0o755 if info.st_mode & stat.S_IXUSR else 0o644
    return _Entry(name, path, tar.FILE, info.st_size, mode)


def _check(entries: Sequence[_Entry]) -> None:
    """Refuse what the unpacker would. Raises Trouble, Refused."""
    limits, links = DEFAULTS, Links(DEFAULTS)
    if len(entries) > limits.entries:
        raise Trouble(f"{len(entries)} entries, where an agent takes {limits.entries}")
    if (total := sum(entry.size for entry in entries)) > limits.unpacked:
        raise Trouble(f"{total} bytes, where an agent takes {limits.unpacked}")
    for entry in entries:
        components(entry.name, entry.name, limits)
        if entry.kind == tar.SYMLINK:
            links.add(entry.name, entry.link)
    links.check()


def _refuse_itself(source: Path, target: Path) -> None:
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise Trouble(
            f"{target} would lie in what is packed, and be part of it the next time",
            "name a place outside with -o",
        )


def _write(entries: Sequence[_Entry], target: Path, compressor: Compressor, tell: Tell) -> tuple[str, int]:
    """Write beside, sync, rename. The archive's sha256 and size."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    digest, size, done = hashlib.sha256(), 0, 0
    total = sum(entry.size for entry in entries)
    with ExitStack() as undo:
        file = undo.enter_context(open(beside, "wb"))
        undo.callback(beside.unlink, missing_ok=True)
        compress, finish = compressor.start()

        def put(data: bytes) -> None:
            nonlocal size
            if data:
                digest.update(data)
                size += len(data)
                file.write(data)

        for entry in entries:
            for piece in _pieces(entry):
                put(compress(piece))
            done += entry.size
            tell(done, total)
        put(compress(tar.END))
        put(finish())
        file.flush()
        os.fsync(file.fileno())
        os.rename(beside, target)
    sync_directory(target.parent)
    return digest.hexdigest(), size


def _pieces(entry: _Entry) -> Iterator[bytes]:
    """The blocks of an entry. Raises Trouble when the file changes meanwhile."""
    if entry.kind != tar.FILE:
        yield tar.header(entry.name, entry.kind, mode=entry.mode, time=_FIRST_TIME, link=entry.link)
        return
    with open(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        whole = file.read(entry.size + 1) if entry.size <= _WHOLE else None
        content = _digest(file) if whole is None else hashlib.sha256(whole).digest()
        time = _FIRST_TIME + int.from_bytes(content[:4], "big") % _SPAN
        yield tar.header(entry.name, tar.FILE, size=entry.size, mode=entry.mode, time=time)
        if whole is not None:
            yield whole
            same = len(whole) == entry.size
        else:
            file.seek(0)
            again, size = hashlib.sha256(), 0
            while piece := file.read(_PIECE):
                again.update(piece)
                size += len(piece)
                yield piece
            same = size == entry.size and again.digest() == content
        if not same:
            raise Trouble(f"{shown(entry.name)} changed while it was packed", "pack when the build is done")
        yield tar.padding(entry.size)


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.digest()
