"""What a power cut could take from under a name: files that a rename makes known before they are on the disk.

A rename is what makes things count here. So whatever it makes known has to be synced before: the files and
directories that are renamed, or those a link leads to, and the directory in which that one's name stands.
The times in inodes tell when each was last changed, and a record of the syncs tells when it was on the disk.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

TICK = 10_000_000  # nanoseconds by which the times in inodes may be late

# Made anew by each agent that begins, or on its way out; of a release that is published right after a syncfs.
CACHES = ("/state/", "/instances/", "/trash/", "/inventories/")


class Unsynced:
    """Hears of syncs and renames; `told` is called with each path that was not on the disk in time."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._all = 0  # when everything was last synced, in nanoseconds since the epoch
        self._synced: dict[int, int] = {}  # likewise, by inode
        self._began = time.time_ns()

    def synced(self, fd: int, began: int) -> None:
        """An fsync(2) of this descriptor ended well, which began then."""
        self._synced[os.fstat(fd).st_ino] = began

    def all_synced(self, began: int) -> None:
        """A syncfs(2)."""
        self._all = began

    def removed(self, path: Any, fd: int = -1) -> None:
        """A file or directory is about to be removed: where it was all on the disk, nothing is missed."""
        try:
            info = os.stat(os.path.dirname(_resolved(path, fd)) or ".")
        except FileNotFoundError:
            return
        if self._is_synced(info):
            self._synced[info.st_ino] = time.time_ns() + TICK

    def renamed(self, source: Any, target: Any, source_fd: int, target_fd: int) -> None:
        """A rename is about to happen."""
        source, target = _resolved(source, source_fd), _resolved(target, target_fd)
        if any(cache in target for cache in CACHES) or os.path.basename(target).startswith("."):
            return
        try:
            for path in _made_known(source, target):
                self._look(path, target)
        except FileNotFoundError:  # of a rename that fails, or files that somebody else tidies away
            return

    def _look(self, path: str, target: str) -> None:
        info = os.lstat(path)
        if (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)) and not self._is_synced(info):
            self._told(f"{path} was not synced before the rename to {target}")

    def _is_synced(self, info: os.stat_result) -> bool:
        return info.st_mtime_ns <= max(self._began, self._all, self._synced.get(info.st_ino, 0))


def _made_known(source: str, target: str) -> Iterator[str]:
    """The paths that have to be on the disk before `source` is renamed to `target`."""
    if not os.path.islink(source):
        yield from _tree(source)
        return
    led = os.path.normpath(os.path.join(os.path.dirname(target), os.readlink(source)))
    if os.path.lexists(led):
        if os.path.dirname(led) != os.path.dirname(target):  # else they are synced together
            yield os.path.dirname(led)
        yield from _tree(led)


def _tree(top: str) -> Iterator[str]:
    yield top
    if os.path.isdir(top) and not os.path.islink(top):
        for directory, names, files in os.walk(top):
            yield from (os.path.join(directory, name) for name in (*names, *files))


def _resolved(path: Any, fd: int) -> str:
    text = os.fsdecode(path)
    return text if fd < 0 else os.path.join(os.readlink(f"/proc/self/fd/{fd}"), text)
