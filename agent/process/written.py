"""What an app's programs said, read back from where the keeper's scribe wrote it (`agent.keeper.scribe`).

Everything here blocks for bounded reads of files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from agent.domain.control import Line

NAME = "output.log"  # in an app's directory
BLOCK = 1 << 18  # bytes read at once
BACK_MAX = 16 << 20  # bytes read back at most for the last lines
_HEAD = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z) ([^:\[\]]*)(?:\[(\d+)\])?: (.*)", re.DOTALL)


def parse(app: str, line: bytes) -> Line:
    """One line of a file; what is no such line is text alone."""
    text = line.decode(errors="replace")
    match = _HEAD.fullmatch(text)
    if match is None:
        return Line(app, text)
    return Line(app, match[4], match[1], match[2], int(match[3] or 0))


def last(app: str, path: Path, count: int) -> list[Line]:
    """The last lines of the file and, as far as needed, of the older ones; oldest first."""
    following = Following(app, path)
    following.begin(count)
    following.close()
    return following.before


def _files(path: Path) -> Iterator[tuple[int, Path]]:
    """(inode, path) of the files there are, newest first."""
    number = 0
    while True:
        file = path.with_name(f"{path.name}.{number}") if number else path
        try:
            yield file.stat().st_ino, file
        except FileNotFoundError:
            if number:
                return
        number += 1


def _last_of(fd: int, count: int) -> tuple[list[bytes], int]:
    """The last whole lines of a file, and where the last of them ends."""
    start, data = os.fstat(fd).st_size, b""
    end = start
    while start > 0 and data.count(b"\n") <= count and end - start < BACK_MAX:
        size = min(BLOCK, start)
        start -= size
        data = os.pread(fd, size, start) + data
    lines = data.split(b"\n")
    end = start + len(data) - len(lines.pop())  # what has no end is being written
    if start > 0 and len(lines) <= count:
        lines = lines[1:]
    return lines[max(0, len(lines) - count) :], end


class Following:
    """Lines of a file, from the last ones on, over rotations. To be closed."""

    def __init__(self, app: str, path: Path) -> None:
        self.before: list[Line] = []  # what `begin` found
        self._app = app
        self._path = path
        self._rest = b""
        self._fd = -1

    def begin(self, count: int) -> None:
        """Find the last `count` lines there are; `more` goes on there."""
        lines: list[bytes] = []
        for _, file in _files(self._path):
            fd = self._open(file)
            if fd < 0:
                continue
            found, end = _last_of(fd, count - len(lines))
            lines = [*found, *lines]
            if self._fd < 0:
                self._fd = fd
                os.lseek(fd, end, os.SEEK_SET)
            else:
                os.close(fd)
            if len(lines) >= count:
                break
        self.before = [parse(self._app, line) for line in lines]

    def more(self) -> list[Line]:
        """Lines written since, at most a block of them; empty when there are none yet."""
        data = os.read(self._fd, BLOCK) if self._fd >= 0 else b""
        if not data:
            newer = self._newer()
            if newer is None:
                return []
            self.close()
            self._rest, self._fd = b"", self._open(newer)
            return self.more() if self._fd >= 0 else []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [parse(self._app, line) for line in lines]

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _newer(self) -> Path | None:
        """The file that came after the one that is read, None when that is the newest."""
        files = list(_files(self._path))
        if self._fd < 0:
            return files[-1][1] if files else None
        here = os.fstat(self._fd).st_ino
        after = None
        for inode, path in files:
            if inode == here:
                return after
            after = path
        return after  # ours is gone: begin with the oldest there is

    @staticmethod
    def _open(path: Path) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
