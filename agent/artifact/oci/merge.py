"""Layers of the store become one tree: what is above hides what is below.

From the top down, so that the first to have a name keeps it, and what a layer takes away is known before
the layers it takes it from. The layers are our own writing, and trusted to be what `layer` made of them.

Files are shared with the layers by hard links where that is safe (see `agent.artifact.sharing`); elsewhere,
where the app is the agent's own user, each release has copies of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.artifact import inventory
from agent.artifact.archive.links import Links
from agent.artifact.archive.refusal import too_large
from agent.artifact.inventory import DIRECTORY, LINK, Entry, Scribe, file_of, seen
from agent.artifact.limits import Limits
from agent.artifact.oci.layer import HIDDEN

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY = 8 * 1024 * 1024  # bytes in one call


def merge(
    layers: Sequence[tuple[Path, Path]],
    target: Path,
    strip: int,
    limits: Limits,
    check: Callable[[], None],
    scribe: Scribe,
    *,
    share: bool,
) -> int:
    """Fill the new directory `target`; returns how many entries it got. Blocks.

    Args:
        layers: directories of the store with their inventories, lowest first.
        strip: leading components to drop; what has no more than these is left out.
        check: called for each entry; what it raises ends the work.
        scribe: writes down what is made.
        share: whether files are links to those of the layers.

    Raises Refused, OSError.
    """
    merging = _Merging(strip, limits, check, scribe, share=share)
    root = os.open(target, _DIRECTORY)
    try:
        os.fchmod(root, 0o755)
        for layer, written in reversed(layers):
            merging.add(layer, inventory.read(written) or {}, root)
    finally:
        os.close(root)
    merging.links.check()
    return merging.entries


class _Merging:
    def __init__(
        self, strip: int, limits: Limits, check: Callable[[], None], scribe: Scribe, *, share: bool
    ) -> None:
        self._scribe = scribe
        self._known: dict[bytes, Entry] = {}  # what the layer has that is being added
        self.links = Links(limits)
        self.entries = 0
        self._bytes = 0
        self._limits = limits
        self._strip = strip
        self._check = check
        self._share = share
        self._hidden: set[bytes] = set()  # by the layers above
        self._opaque: set[bytes] = set()

    def add(self, layer: Path, known: dict[bytes, Entry], root: int) -> None:
        """The next layer, from the top."""
        self._known = known
        source = os.open(layer / "tree", _DIRECTORY)
        try:
            self._directory(source, root, [])
        finally:
            os.close(source)
        for mark in (layer / "marks").read_bytes().split(b"\0")[:-1]:
            (self._hidden if mark.startswith(HIDDEN) else self._opaque).add(mark[len(HIDDEN) :])

    def _directory(self, source: int, target: int, path: list[bytes]) -> None:
        if self._opaque and b"/".join(path) in self._opaque:
            return
        for text in os.listdir(source):
            self._check()
            name = os.fsencode(text)
            inner = [*path, name]
            if self._hidden and b"/".join(inner) in self._hidden:
                continue
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                self._enter(source, target, inner)
            elif len(inner) > self._strip:
                self._entry(source, target, inner, info)

    def _enter(self, source: int, target: int, path: list[bytes]) -> None:
        inside = os.open(path[-1], _DIRECTORY, dir_fd=source)
        try:
            if len(path) <= self._strip:
                self._directory(inside, target, path)
                return
            made = self._make(path, target)
            if made is None:
                return
            try:
                self._directory(inside, made, path)
            finally:
                os.close(made)
        finally:
            os.close(inside)

    def _make(self, path: list[bytes], parent: int) -> int | None:
        """The descriptor of a directory; None when a layer above has something else of that name."""
        name = path[-1]
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            new = True
        except FileExistsError:
            new = False
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if not new and error.errno in (errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        if new:
            os.fchmod(fd, 0o755)
            self._count(0, name)
            self._scribe.add(b"/".join(path[self._strip :]), Entry(DIRECTORY))
        return fd

    def _entry(self, source: int, target: int, path: list[bytes], info: os.stat_result) -> None:
        name, inner = path[-1], b"/".join(path[self._strip :])
        try:
            if stat.S_ISLNK(info.st_mode):
                link = os.readlink(name, dir_fd=source)
                os.symlink(link, name, dir_fd=target)
                self.links.add(inner, link)
                self._scribe.add(inner, Entry(LINK, target=link))
            else:
                if not self._share or not _linked(source, target, name):
                    self._copy(source, target, name, info)
                made = os.stat(name, dir_fd=target, follow_symlinks=False)
                self._scribe.add(inner, seen(made, file_of(self._known, b"/".join(path)).digest))
        except FileExistsError:
            return  # a layer above has it
        self._count(info.st_size, name)

    def _count(self, size: int, name: bytes) -> None:
        """Layers that were in the store already have not been held against what may be in one tree."""
        self.entries += 1
        self._bytes += size
        if self.entries > self._limits.entries:
            raise too_large(f"the layers have more than {self._limits.entries} entries", name)
        if self._bytes > self._limits.unpacked:
            raise too_large(f"the layers unpack to more than {self._limits.unpacked} bytes", name)

    def _copy(self, source: int, target: int, name: bytes, info: os.stat_result) -> None:
        mode = stat.S_IMODE(info.st_mode)
        new = os.open(name, _NEW_FILE, mode, dir_fd=target)
        try:
            old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            try:
                while _moved(old, new):
                    self._check()
            finally:
                os.close(old)
            os.fchmod(new, mode)
            os.utime(new, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(new)


def _linked(source: int, target: int, name: bytes) -> bool:
    """Give the file one more name; False when it has too many. Raises OSError."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def _moved(old: int, new: int) -> int:
    """Copy some bytes on, sharing them where the file system can; returns how many."""
    try:
        return os.copy_file_range(old, new, _COPY)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL):
            raise
        return os.sendfile(new, old, None, _COPY)
