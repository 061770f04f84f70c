"""Whether a tree of the store still is what its inventory says.

A *quick* look asks each name for its lstat(2) and reads only files that may have changed: a file counts as
untouched while inode, size, mode and both times are those of the inventory. The change time of a file with
several names says nothing, because every new name changes it; where only root can have written to the
file, the rest of them is enough. A *thorough* look reads everything, and also finds what does not belong
there.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.artifact import inventory
from agent.artifact.inventory import DIRECTORY, FILE, LINK, Entry, file_of

_CHUNK = 1 << 20
_SETTLED = 2_000_000_000  # nanoseconds; a file changed later than that may change again with the same time


@dataclass(slots=True)
class Findings:
    """What a look found. Paths are relative to the tree.

    `changed` are names of the inventory that are not as it says, `extra` names it does not have (only a
    thorough look finds them). `entries` is the inventory, `refreshed` says that it now knows better which
    files nobody touched. `known` is false where there is no whole inventory: then nothing can be said.
    """

    known: bool = True
    changed: list[bytes] = field(default_factory=list)
    extra: list[bytes] = field(default_factory=list)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    refreshed: bool = False
    files: int = 0
    read: int = 0  # bytes

    @property
    def whole(self) -> bool:
        """Whether everything that belongs there is there, and right."""
        return self.known and not self.changed


def inspect(
    tree: Path, written: Path, *, thorough: bool, check: Callable[[], None] = lambda: None
) -> Findings:
    """Compare a tree with the inventory in the file `written`. Blocks.

    `check` is called between two steps of bounded size; what it raises ends the look. Raises OSError for
    what cannot be read at all.
    """
    entries = inventory.read(written)
    if entries is None:
        return Findings(known=False)
    look = _Look(os.fsencode(tree), Findings(entries=entries), thorough, check)
    look.compare()
    if thorough:
        look.find_extra()
    return look.found


class _Look:
    def __init__(self, root: bytes, found: Findings, thorough: bool, check: Callable[[], None]) -> None:
        self.found = found
        self._root = root
        self._thorough = thorough
        self._check = check
        self._fresh: dict[bytes, Entry] = {}

    def compare(self) -> None:
        """Every name of the inventory."""
        try:
            owner = os.lstat(self._root).st_uid
        except FileNotFoundError:
            self.found.changed = list(self.found.entries)
            return
        for path, entry in self.found.entries.items():
            self._check()
            try:
                right = self._is_right(path, entry, owner)
            except (FileNotFoundError, NotADirectoryError):
                right = False
            if not right:
                self.found.changed.append(path)
        if self._fresh:
            self.found.entries |= self._fresh
            self.found.refreshed = True

    def find_extra(self) -> None:
        """Names that are in no inventory; what is below one of them is not looked at."""
        todo = [b""]
        while todo:
            here = todo.pop()
            try:
                names = list(os.scandir(os.path.join(self._root, here)))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                self._check()
                path = os.path.join(here, name.name)
                entry = self.found.entries.get(path)
                if entry is None:
                    self.found.extra.append(path)
                elif entry.kind == DIRECTORY and name.is_dir(follow_symlinks=False):
                    todo.append(path)
        self.found.extra.sort()

    def _is_right(self, path: bytes, entry: Entry, owner: int) -> bool:
        here = os.path.join(self._root, path)
        info = os.lstat(here)
        if entry.kind == DIRECTORY:
            return stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o755
        if entry.kind == LINK:
            return stat.S_ISLNK(info.st_mode) and os.readlink(here) == entry.target
        try:
            file = file_of(self.found.entries, path)
        except LookupError:
            return False
        if not stat.S_ISREG(info.st_mode):
            return False
        self.found.files += 1
        if (info.st_size, stat.S_IMODE(info.st_mode), info.st_uid) != (file.size, file.mode, owner):
            return False
        if not self._thorough and untouched(info, file):
            return True
        if self._digest(here, info) != file.digest:
            return False
        if entry.kind == FILE and time.time_ns() - info.st_ctime_ns > _SETTLED:
            fresh = inventory.seen(info, file.digest)
            if fresh != file:
                self._fresh[path] = fresh
        return True

    def _digest(self, path: bytes, info: os.stat_result) -> str:
        """Of what is there now; "" when that changes meanwhile."""
        digest = hashlib.sha256()
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                self._check()
                self.found.read += len(data)
                digest.update(data)
            now = os.fstat(fd)
        same = (now.st_ino, now.st_size, now.st_ctime_ns) == (info.st_ino, info.st_size, info.st_ctime_ns)
        return digest.hexdigest() if same else ""


def untouched(info: os.stat_result, file: Entry) -> bool:
    """Whether a file is the one of the entry, and nobody changed it since."""
    now = inventory.seen(info, file.digest)
    if now == file:
        return True
    shared = info.st_nlink > 1 and info.st_uid == 0 and not info.st_mode & 0o022
    return shared and replace(now, ctime=file.ctime) == file
