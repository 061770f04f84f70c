"""A commit's tree as files in a directory, for people and programs that know nothing of Git.

Walks without recursion, every step relative to the descriptor of its directory, never following a
link. Refused, as `Permanent("TreeRefused")`: names that are not plain names, symbolic links that could
lead out, submodules, Git LFS pointers. Refused as `Permanent("TreeTooLarge")`: too many entries,
bytes or levels.

A symbolic link may go up first and then down: `..` only at its beginning and no more of them than it
is deep. Every link then ends inside by induction, even where it passes through other links; counting
`..` in the middle would be wrong there (`a -> .`, then `a/../x`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.domain.errors import OperatorNeeded, Permanent
from agent.kit.files import remove_tree
from agent.kit.text import printable
from agent.source.git.objects import BLOB, read_tree
from agent.source.git.pktline import Garbled
from agent.source.git.transport import Objects

DIRECTORY, LINK, SUBMODULE = 0o040000, 0o120000, 0o160000
FILES = {0o100644: 0o644, 0o100664: 0o644, 0o100755: 0o755}  # 664 is of Git's early days
NAME_MAX = 255
LINK_MAX = 4095
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_MAX = 1024


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """How much a tree may hold; sizes in bytes. Far above what configuration needs."""

    entries: int = 100_000
    bytes: int = 512 << 20
    depth: int = 64


DEFAULT_LIMITS = ExportLimits()


@dataclass(slots=True)
class _Level:
    """A directory under way: its descriptor, what is left of it, and its path in the tree."""

    fd: int
    entries: Iterator[tuple[bytes, int, str]]
    path: bytes


def export_tree(
    objects: Objects, tree: str, directory: Path, stop: threading.Event, limits: ExportLimits = DEFAULT_LIMITS
) -> None:
    """Write the tree with the id `tree` into `directory`, which is made or is empty. Blocks.

    Modes are 644 and 755 whatever the umask; nothing is synced. After any error, `directory` is gone.

    Raises Permanent (see above), OperatorNeeded("DiskFull", "ExportFailed"), KeyError and Garbled from
    `objects`, InterruptedError when `stop` was set.
    """
    try:
        directory.mkdir(exist_ok=True)
        with os.scandir(directory) as present:
            if next(present, None) is not None:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    except OSError as error:
        raise _disk(error, directory) from error
    try:
        _Export(objects, limits, stop).run(tree, directory)
    except OSError as error:
        remove_tree(directory)
        if isinstance(error, InterruptedError):
            raise
        raise _disk(error, directory) from error
    except BaseException:
        remove_tree(directory)
        raise


class _Export:
    def __init__(self, objects: Objects, limits: ExportLimits, stop: threading.Event) -> None:
        self._objects = objects
        self._limits = limits
        self._stop = stop
        self._entries = 0
        self._bytes = 0
        self._levels: list[_Level] = []

    def run(self, tree: str, directory: Path) -> None:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._levels.append(_Level(fd, iter(()), b""))
            os.fchmod(fd, 0o755)
            self._levels[0].entries = read_tree(self._objects, tree)
            while self._levels:
                level = self._levels[-1]
                for name, mode, oid in level.entries:
                    if self._entry(level, name, mode, oid):
                        break
                else:
                    os.close(self._levels.pop().fd)
        finally:
            for level in self._levels:
                os.close(level.fd)

    def _entry(self, level: _Level, name: bytes, mode: int, oid: str) -> bool:
        """Write one entry; True when it is a directory, which is now the last level."""
        if self._stop.is_set():
            raise InterruptedError
        path = level.path + name
        self._entries += 1
        if self._entries > self._limits.entries:
            raise too_large(f"more than {self._limits.entries} entries", path)
        if not is_plain(name):
            raise refused(f"{printable(repr(name)[1:], 80)} is not a name a file may have", level.path)
        try:
            if mode == DIRECTORY:
                self._directory(level, name, oid)
                return True
            if mode in FILES:
                self._file(level.fd, name, FILES[mode], self._blob(oid, path), path)
            elif mode == LINK:
                self._link(level, name, self._blob(oid, path))
            elif mode == SUBMODULE:
                raise refused(
                    "a submodule, which is not supported", path, "put its files into the repository"
                )
            else:
                raise refused(f"an entry of unknown mode {mode:o}", path)
        except FileExistsError:
            raise refused("listed twice in one directory", path) from None
        return False

    def _blob(self, oid: str, path: bytes) -> bytes:
        kind, content = self._objects.get(oid)
        if kind != BLOB:
            raise Garbled(f"{oid} is not a blob")
        self._bytes += len(content)
        if self._bytes > self._limits.bytes:
            raise too_large(f"more than {self._limits.bytes} bytes", path)
        return content

    def _directory(self, level: _Level, name: bytes, oid: str) -> None:
        path = level.path + name + b"/"
        if len(self._levels) >= self._limits.depth:
            raise too_large(f"more than {self._limits.depth} levels", path)
        os.mkdir(name, 0o755, dir_fd=level.fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=level.fd)
        self._levels.append(_Level(fd, iter(()), path))
        os.fchmod(fd, 0o755)
        self._levels[-1].entries = read_tree(self._objects, oid)

    def _file(self, fd: int, name: bytes, mode: int, content: bytes, path: bytes) -> None:
        if is_lfs(content):
            raise refused(
                "a Git LFS pointer, which is not supported", path, "put the file itself into the repository"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(name, flags, mode, dir_fd=fd)
        try:
            os.fchmod(out, mode)
            written = os.write(out, content)
            while written < len(content):
                written += os.write(out, content[written:])
        finally:
            os.close(out)

    def _link(self, level: _Level, name: bytes, target: bytes) -> None:
        path = level.path + name
        if not target or len(target) > LINK_MAX or b"\0" in target:
            raise refused("a symbolic link to nothing that could be", path)
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        up = 0
        while up < len(parts) and parts[up] == b"..":
            up += 1
        if target.startswith(b"/") or up >= len(self._levels) or b".." in parts[up:]:
            raise refused(
                "a symbolic link that could lead out of the repository",
                path,
                "make it relative, with `..` at its beginning only",
            )
        os.symlink(target, name, dir_fd=level.fd)


def is_plain(name: bytes) -> bool:
    """Whether a name in a tree is one that may become a file: no path, no `..`, no `.git`."""
    return (
        0 < len(name) <= NAME_MAX
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
        and name.lower() != b".git"
    )


def is_lfs(content: bytes) -> bool:
    """Whether a file stands for one that Git LFS keeps elsewhere."""
    return content.startswith(_LFS) and len(content) <= _LFS_MAX


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "replace"), 200)


def refused(what: str, path: bytes, remedy: str = "") -> Permanent:
    """What may not be written."""
    return Permanent("TreeRefused", what, where=_shown(path) or "the repository's root", remedy=remedy)


def too_large(what: str, path: bytes) -> Permanent:
    """What would be too much."""
    return Permanent(
        "TreeTooLarge",
        f"the repository's tree has {what}",
        where=_shown(path),
        remedy="keep what is deployed out of the state repository",
    )


def _disk(error: OSError, directory: Path) -> OperatorNeeded:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperatorNeeded(
            "DiskFull",
            "no space is left for the state's files",
            where=str(directory),
            remedy="free some space",
        )
    words = error.strerror or type(error).__name__
    return OperatorNeeded(
        "ExportFailed", f"the state's files cannot be written: {words}", where=str(directory)
    )
