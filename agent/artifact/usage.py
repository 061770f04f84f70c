"""What the store takes on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 512  # bytes of st_blocks, stat(2)


@dataclass(frozen=True, slots=True)
class Size:
    """`files` and the `bytes` in them as programs see them; `disk` bytes that nothing counted before has."""

    files: int = 0
    bytes: int = 0
    disk: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes, self.disk + other.disk)


def measure(path: Path, counted: set[tuple[int, int]], check: Callable[[], None] = lambda: None) -> Size:
    """The size of a file or tree; nothing is no size. Blocks.

    `counted` are the files that were counted already (device and inode): what has several names is on disk
    once. `check` is called for each name; what it raises ends the work.
    """
    files = size = disk = 0
    todo = [os.fspath(path)]
    while todo:
        here = todo.pop()
        check()
        try:
            info = os.lstat(here)
            if os.path.isdir(here) and not os.path.islink(here):
                todo += [entry.path for entry in os.scandir(here)]
            else:
                files, size = files + 1, size + info.st_size
        except (FileNotFoundError, NotADirectoryError):
            continue  # being removed
        key = info.st_dev, info.st_ino
        if key not in counted:
            disk += info.st_blocks * _BLOCK
            if info.st_nlink > 1:
                counted.add(key)
    return Size(files, size, disk)
