"""Reading files of an exported state repository: never outside it, never more than asked for."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from pathlib import Path

NAMES_MAX = 1000  # entries of a directory of state files


class TreeFault(Exception):
    """A file that cannot be had; the text says why, in words that go after the file's name."""


class NotThere(TreeFault):
    """Nothing has that name."""


class Tree:
    """The exported tree below `root`. Names are relative to it, with slashes."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a regular file of at most `limit` bytes.

        A symbolic link counts as what it points to, if that lies in the tree. Raises TreeFault.
        """
        try:
            fd = os.open(self._inside(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise TreeFault("is not a regular file")
                with os.fdopen(fd, "rb", closefd=False) as file:
                    data = file.read(limit + 1)
            finally:
                os.close(fd)
        except OSError as error:
            raise _fault(error) from None
        if len(data) > limit:
            raise TreeFault(f"is larger than {limit >> 10} KiB")
        return data

    def text(self, name: str, limit: int) -> str:
        """The same as UTF-8 text. Raises TreeFault."""
        try:
            return self.read(name, limit).decode()
        except UnicodeDecodeError:
            raise TreeFault("is not UTF-8 text") from None

    def is_directory(self, name: str) -> bool:
        """Whether `name` is a directory of the tree. Raises TreeFault."""
        return os.path.isdir(self._inside(name))

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name in the tree. Raises TreeFault."""
        return os.path.lexists(self._inside(name))

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted. Raises TreeFault."""
        found: list[str] = []
        try:
            with os.scandir(self._inside(directory)) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) > NAMES_MAX:
                        raise TreeFault(f"holds more than {NAMES_MAX} files")
        except OSError as error:
            raise _fault(error) from None
        return sorted(found)

    def _inside(self, name: str) -> str:
        try:
            real = os.path.realpath(os.path.join(self._root, normal(name)))
        except (OSError, ValueError) as error:  # a loop of links, a name with a zero byte
            raise TreeFault("cannot be read") from error
        if real != self._root and not real.startswith(self._root.rstrip("/") + "/"):
            raise TreeFault("leaves the repository")
        return real


def normal(name: str, beside: str = "") -> str:
    """`name`, relative to the directory of the file `beside`, normalised. Raises TreeFault."""
    if name.startswith("/"):
        raise TreeFault("is absolute; names are relative to the repository")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(beside), name))
    if joined == ".." or joined.startswith("../"):
        raise TreeFault("leaves the repository")
    return joined


def _fault(error: OSError) -> TreeFault:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return NotThere("is not there")
    if error.errno == errno.ELOOP:
        return TreeFault("is a loop of symbolic links")
    return TreeFault(f"cannot be read: {error.strerror}")
