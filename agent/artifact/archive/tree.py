"""Writes the entries of an archive into one directory and never outside it.

Each component of a path is opened from its parent's descriptor without following links, each file is made
with O_EXCL: what an entry wants cannot be reached through what an earlier one left. Modes are normalised
(directories 0755, files 0644, or 0755 when their owner may execute them), owners are not taken over,
modification times of files are. A second entry for one file or link is refused; for a directory it is not.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.artifact import inventory
from agent.artifact.archive.headers import Header
from agent.artifact.archive.links import Links
from agent.artifact.archive.reader import Piece
from agent.artifact.archive.refusal import Refused, broken, harmful, too_large
from agent.artifact.limits import Limits
from agent.kit.writeback import Writeback

T = TypeVar("T")
_ZEROS = bytes(1 << 20)
_EARLY = 64 << 10  # bytes of a file from which on the disk begins with it before the sync
_MANY = 2000  # smaller files after which it begins with all of them
_FLUSH = 16 << 20  # bytes of one file after which the disk is asked to begin
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def components(path: bytes, entry: bytes, limits: Limits) -> list[bytes]:
    """The parts of a path, "." among them, empty ones left out. Raises Refused, naming `entry`."""
    if not path:
        raise broken("an empty path", entry or b"?")
    if path.startswith(b"/"):
        raise harmful("an absolute path", entry)
    if len(path) > limits.path:
        raise too_large(f"a path longer than {limits.path} bytes", entry)
    parts = [p for p in path.split(b"/") if p]
    if b".." in parts:
        raise harmful("a path that leaves the directory", entry)
    if len(parts) > limits.depth:
        raise too_large(f"a path deeper than {limits.depth} directories", entry)
    if len(path) > limits.name and any(len(p) > limits.name for p in parts):
        raise too_large(f"a name longer than {limits.name} bytes", entry)
    return parts


class Tree:
    """The writing end, a `reader.Sink`. `close` it in any case.

    Args:
        root: an empty directory that nobody else writes to, just made with mode 0755.
        strip: leading components to drop, counted as GNU tar's --strip-components does ("." is one).
        scribe: writes down what is made, with the digest of each file.
    """

    def __init__(
        self, root: Path, strip: int, limits: Limits, scribe: inventory.Scribe | None = None
    ) -> None:
        self._scribe = scribe
        self._digest = hashlib.sha256()
        self._path = b""  # of the file that is being written
        self._known = ""
        self._written = 0  # since the disk was last asked to begin
        self._small = 0  # files so far that are not worth asking for
        self._writeback = Writeback()
        self._limits = limits
        self._strip = strip
        self._links = Links(limits)
        self._open: list[tuple[bytes, int]] = []  # the directories from the root to where we are
        self._here: list[bytes] | None = []  # their names; None when it is not sure that all are open
        self._file = -1
        self._mtime = 0
        self._skipping = False
        self._holes = False
        self._bytes = 0
        self._directories = 0
        self.entries = 0  # written so far, directories that were only implied left out
        self._root = os.open(root, _DIRECTORY)
        # Asking each file's mode would cost a call a file; the umask is the same for all.
        self._umask_interferes = stat.S_IMODE(os.fstat(self._root).st_mode) & 0o777 != 0o755
        if self._umask_interferes:
            os.fchmod(self._root, 0o755)

    def directory(self, header: Header) -> None:
        """Make a directory, or find it made already."""
        parts = self._place(header.name, header.name)
        if parts:
            self._enter(parts, header.name)
            self.entries += 1

    def begin(self, header: Header) -> None:
        """Start a regular file. Set-id bits are refused: they would be lost or dangerous."""
        if header.mode & 0o6000:
            raise harmful("has a set-user-id or set-group-id bit", header.name)
        self._bytes += header.size
        if self._bytes > self._limits.unpacked:
            raise too_large(f"unpacks to more than {self._limits.unpacked} bytes", header.name)
        parts = self._place(header.name, header.name)
        self._skipping = not parts
        if parts:
            self._create(parts, header.name, 0o755 if header.mode & 0o100 else 0o644)
            self._mtime = header.mtime
            self._holes = False
            self._written = 0

    def write(self, data: Piece) -> None:
        """Write on."""
        if not self._skipping:
            if self._scribe is not None and not self._known:
                self._digest.update(data)
            write_all(self._file, data)
            self._written += len(data)
            if self._written >= _FLUSH:
                self._written = 0
                self._writeback.begin(self._file)

    def hole(self, size: int) -> None:
        """Leave a hole."""
        if size and not self._skipping:
            os.lseek(self._file, size, os.SEEK_CUR)
            self._holes = True
            for start in range(0, size if self._scribe is not None else 0, len(_ZEROS)):
                self._digest.update(memoryview(_ZEROS)[: size - start])

    def end(self) -> None:
        """Close the file."""
        if not self._skipping:
            if self._holes:  # the last of them may end the file
                os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR))
            os.utime(self._file, ns=(self._mtime, self._mtime))
            if self._written >= _EARLY:
                self._writeback.begin(self._file)
            else:
                self._small += 1
                if self._small % _MANY == 0:
                    self._writeback.begin_all(self._root)
            self._end_file()

    def symlink(self, header: Header) -> None:
        """Make a symbolic link; where it leads is checked in `finish`."""
        parts = self._place(header.name, header.name)
        if not parts:
            return
        self._links.add(b"/".join(parts), header.link)
        parent = self._enter(parts[:-1], header.name)
        self._once(lambda: os.symlink(header.link, parts[-1], dir_fd=parent), header.name)
        if self._scribe is not None:
            self._scribe.add(b"/".join(parts), inventory.Entry(inventory.LINK, target=header.link))

    def hardlink(self, header: Header) -> None:
        """Give an earlier file of this tree one more name."""
        parts = self._place(header.name, header.name)
        if not parts:
            return
        source = self._place(header.link, header.name)
        if not source:
            raise harmful("a hard link to what is not in the tree", header.name)
        # A descriptor of its own: entering the new name's directory may close the source's.
        beside = os.dup(self._enter(source[:-1], header.name, make=False))
        try:
            try:
                regular = stat.S_ISREG(os.stat(source[-1], dir_fd=beside, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                regular = False
            if not regular:
                raise harmful("a hard link to what is not an earlier file", header.name)
            parent = self._enter(parts[:-1], header.name)
            link = lambda: os.link(  # noqa: E731 - one call, handed over
                source[-1], parts[-1], src_dir_fd=beside, dst_dir_fd=parent, follow_symlinks=False
            )
            self._once(link, header.name)
            if self._scribe is not None:
                earlier = inventory.Entry(inventory.HARD, target=b"/".join(source))
                self._scribe.add(b"/".join(parts), earlier)
        finally:
            os.close(beside)

    def plain(self, target: bytes, digest: str = "") -> None:
        """Start the one executable file of an artifact that is no archive; then `write`, `finish`.

        `digest` is its sha256 if it is sure to have one when the tree is used.
        """
        self._known = digest
        parts = [p for p in components(target, target, self._limits) if p != b"."]
        if not parts:
            raise harmful("not the name of a file", target)
        self._create(parts, target, 0o755)

    def finish(self) -> None:
        """All entries are there: check the links. Raises Refused, and OSError for what was not written."""
        self._end_file()
        self._links.check()
        self._writeback.end()

    def close(self) -> None:
        """Close every descriptor. May be called again."""
        self._close_file()
        self._writeback.close()
        while self._open:
            os.close(self._open.pop()[1])
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _place(self, path: bytes, entry: bytes) -> list[bytes]:
        """The components something is written at; none when it is the root or was stripped away."""
        return [p for p in components(path, entry, self._limits)[self._strip :] if p != b"."]

    def _create(self, parts: list[bytes], name: bytes, mode: int) -> None:
        parent = self._enter(parts[:-1], name)
        self.entries += 1
        try:
            self._file = os.open(parts[-1], _NEW_FILE, mode, dir_fd=parent)
        except FileExistsError:
            raise _twice(name) from None
        if self._umask_interferes:
            os.fchmod(self._file, mode)
        if self._scribe is not None:
            self._path = b"/".join(parts)
            self._digest = hashlib.sha256()

    def _once(self, make: Callable[[], T], name: bytes) -> T:
        self.entries += 1
        try:
            return make()
        except FileExistsError:
            raise _twice(name) from None

    def _enter(self, parts: list[bytes], name: bytes, *, make: bool = True) -> int:
        """The descriptor of a directory below the root, made where it is missing."""
        if parts == self._here:
            return self._open[-1][1] if self._open else self._root
        self._here = None
        same = 0
        for (here, _), part in zip(self._open, parts, strict=False):
            if here != part:
                break
            same += 1
        while len(self._open) > same:
            os.close(self._open.pop()[1])
        fd = self._open[-1][1] if self._open else self._root
        for depth, part in enumerate(parts[same:], start=same + 1):
            made = self._directories
            fd = self._step(fd, part, name, make)
            self._open.append((part, fd))
            if self._scribe is not None and self._directories != made:
                self._scribe.add(b"/".join(parts[:depth]), inventory.Entry(inventory.DIRECTORY))
        self._here = parts
        return fd

    def _step(self, parent: int, part: bytes, name: bytes, make: bool) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise harmful("a hard link to what is not an earlier file", name) from None
        except NotADirectoryError:  # also said of a link, because of O_NOFOLLOW
            raise harmful("a path through what is not a directory", name) from None
        self._directories += 1
        if self._directories > self._limits.entries:
            raise too_large(f"more than {self._limits.entries} directories", name)
        os.mkdir(part, 0o755, dir_fd=parent)
        fd = os.open(part, _DIRECTORY, dir_fd=parent)
        if self._umask_interferes:
            os.fchmod(fd, 0o755)
        return fd

    def _end_file(self) -> None:
        if self._file >= 0 and self._scribe is not None:
            digest = self._known or self._digest.hexdigest()
            self._scribe.add_file(self._path, os.fstat(self._file), digest)
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _twice(name: bytes) -> Refused:
    return harmful("is in the archive twice", name)


def write_all(fd: int, data: Piece) -> None:
    """write(2) until all is written. Raises OSError."""
    written = os.write(fd, data) if data else 0
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
