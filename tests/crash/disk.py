"""A directory tree as a list of changes: what is on the disk after some of them, others lost in a power cut.

Names and contents are apart, as on a disk: a directory is names of nodes, a change sets or takes away names,
or writes into a node. A change is on the disk for sure once what it changed was synced: the file, or the
directory. That is less than journaling file systems promise, where a sync often takes along what came before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

ROOT = 0


@lru_cache(1 << 10)
def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Change:
    """Something done, in full or not at all; `synced` is how many were done when it was for sure.

    `names` are (directory, name, node or None), `writes` are (file, offset, data); data None cuts the file.
    `line` is where it was heard of in the log.
    """

    what: str
    names: list[tuple[int, str, int | None]] = field(default_factory=list)
    writes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    synced: float = float("inf")
    line: int = 0


class Tree:
    """Nodes and names. `links` are texts, `modes` are never lost."""

    def __init__(self) -> None:
        self.names: dict[int, dict[str, int]] = {ROOT: {}}
        self.files: dict[int, bytes] = {}
        self.links: dict[int, str] = {}
        self.modes: dict[int, int] = {}
        self._numbers = iter(range(1, 1 << 60))

    @classmethod
    def of(cls, path: Path) -> Tree:
        """A tree like the one on this disk."""
        self = cls()
        self._read(ROOT, path)
        return self

    def _read(self, node: int, path: Path) -> None:
        for entry in os.scandir(path):
            if entry.is_symlink():
                inner = self.link(os.readlink(entry.path))
            elif entry.is_dir():
                inner = self.directory()
                self._read(inner, Path(entry.path))
            elif entry.is_file():
                inner = self.file(Path(entry.path).read_bytes())
            else:
                continue  # a socket
            self.modes[inner] = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            self.names[node][entry.name] = inner

    def directory(self) -> int:
        """A new node."""
        node = next(self._numbers)
        self.names[node] = {}
        return node

    def file(self, data: bytes = b"") -> int:
        """A new node."""
        node = next(self._numbers)
        self.files[node] = data
        return node

    def link(self, text: str) -> int:
        """A new node."""
        node = next(self._numbers)
        self.links[node] = text
        return node

    def after(self, changes: Iterable[Change]) -> Tree:
        """Another tree, after these changes of this one."""
        other = Tree()
        other.links, other.modes, other._numbers = self.links, self.modes, self._numbers
        other.names = {node: dict(names) for node, names in self.names.items()}
        other.files = dict(self.files)
        for change in changes:
            other.apply(change)
        return other

    def apply(self, change: Change) -> None:
        """Change this one."""
        for directory, name, node in change.names:
            if node is None:
                self.names[directory].pop(name, None)
            else:
                self.names[directory][name] = node
        for node, offset, data in change.writes:
            old = self.files[node]
            if data is None:
                self.files[node] = old[:offset].ljust(offset, b"\0")
            else:
                self.files[node] = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]

    def find(self, path: str, *, follow: bool = True) -> int | None:
        """The node at a path from the root; None when there is none, or a link leads out."""
        node, parts, hops = ROOT, [part for part in path.split("/") if part], 0
        above = [ROOT]
        while parts:
            part = parts.pop(0)
            if part == "..":
                above = above[:-1] or [ROOT]
                node = above[-1]
                continue
            inner = self.names.get(node, {}).get(part) if part != "." else node
            if inner is None:
                return None
            if inner in self.links and (parts or follow):
                hops += 1
                if self.links[inner].startswith("/") or hops > 20:
                    return None
                parts = [piece for piece in self.links[inner].split("/") if piece] + parts
                continue
            node = inner
            above.append(node)
        return node

    # -- looking -------------------------------------------------------------------------------------

    def flat(self) -> dict[str, str]:
        """What is at each path, in short."""
        found: dict[str, str] = {}
        self._flatten(ROOT, "", found, set())
        return found

    def _flatten(self, node: int, path: str, found: dict[str, str], seen: Collection[int]) -> None:
        for name, inner in self.names[node].items():
            where = f"{path}/{name}" if path else name
            if inner in self.links:
                found[where] = f"-> {self.links[inner]}"
            elif inner in self.files:
                found[where] = _sum(self.files[inner])
            elif inner not in seen:
                found[where] = "directory"
                self._flatten(inner, where, found, {*seen, inner})

    def write(self, path: Path) -> None:
        """Make the directory at `path`, which may be there, be this tree."""
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        self._write(ROOT, str(path))

    def _write(self, node: int, path: str) -> None:
        for name, inner in self.names[node].items():
            where = f"{path}/{name}"
            if inner in self.links:
                os.symlink(self.links[inner], where)
                continue
            if inner in self.files:
                with open(where, "wb") as file:
                    file.write(self.files[inner])
            else:
                os.mkdir(where)
                self._write(inner, where)
            os.chmod(where, self.modes.get(inner, 0o755 if inner in self.names else 0o644))
