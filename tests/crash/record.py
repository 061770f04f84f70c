"""What programs do to a directory tree, heard by strace(1): the record of a deploy, as `disk.Change`s.

Every call that changes names or contents below the directory is taken, of all threads and programs. Changes
of memory that a file is mapped into are not heard of: of SQLite that is its index (-shm), which counts for
nothing after a power cut. Whether nothing else was missed is told by comparing the outcome with the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.disk import Change, Tree

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,rename,"
    "renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,link,linkat,fsync,fdatasync,"
    "syncfs,sync,chmod,fchmod,fchmodat,copy_file_range,sendfile"
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)(?:<([^>]*)>)?")
_ARGUMENT = re.compile(
    r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|(AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2}|[^>])*)>|([^,\[\]{}\s]+)'
)
_WAL_HEADER, _FRAME_HEADER = 32, 24


def strace(log: Path) -> list[str]:
    """The words before a command that have it heard."""
    return ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-y", "-xx", "-s", "16777216", "-e", "signal=none",
            "-e", f"trace={CALLS}", "-o", str(log)]  # fmt: skip


@dataclass
class Argument:
    """One of a call: bytes, a descriptor with what it leads to, or a word."""

    data: bytes | None = None
    fd: int | None = None
    path: str = ""
    word: str = ""


@dataclass
class Record:
    """The tree before, and what was done to it. `full` is the tree after all of it.

    `span` are the lines of the log in which it was under way: between the agent's start and its end.
    """

    root: str
    base: Tree
    full: Tree
    changes: list[Change] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    span: range = range(0)


def _text(raw: str) -> bytes:
    return bytes.fromhex(raw.replace("\\x", "")) if raw.startswith("\\x") else raw.encode()


def calls(log: Path) -> Iterator[tuple[int, str, str, int, str]]:
    """Each call that succeeded, when it ended: the line it began at, name, arguments, result, its path."""
    begun: dict[str, tuple[int, str]] = {}
    with open(log, encoding="latin-1") as lines:
        for number, line in enumerate(lines):
            if (found := _LINE.match(line)) is None:
                continue
            thread, rest = found.groups()
            start = number
            if rest.endswith("<unfinished ...>"):
                begun[thread] = number, rest.removesuffix("<unfinished ...>")
                continue
            if rest.startswith("<... "):
                if thread not in begun:
                    continue
                start, before = begun.pop(thread)
                rest = before.rstrip() + rest.partition("resumed>")[2].lstrip()
            call = _CALL.match(rest)
            if call is not None and int(call[3]) >= 0:
                yield (
                    start,
                    call[1],
                    call[2],
                    int(call[3]),
                    _text(call[4] or "").decode(errors="surrogateescape"),
                )


def arguments(text: str) -> list[Argument]:
    """The arguments of a call, those in brackets too."""
    found = []
    for data, more, fd, path, word in _ARGUMENT.findall(text):
        assert not more, f"cut short: {text[:200]}"
        if word:
            found.append(Argument(word=word))
        elif fd:
            place = _text(path).decode(errors="surrogateescape")
            found.append(Argument(fd=-1 if fd == "AT_FDCWD" else int(fd), path=place))
        else:
            found.append(Argument(data=_text(data) if data else b""))
    return found


def record(log: Path, root: Path, base: Tree) -> Record:
    """What was done below `root`, which looked like `base` before."""
    recorded = Record(str(root), base, base.after(()))
    listener = _Listener(recorded)
    for start, name, text, result, path in calls(log):
        listener.hears(start, name, text, result, path)
    return recorded


class _Listener:
    """Turns calls into changes."""

    def __init__(self, recorded: Record) -> None:
        self._to = recorded
        self._tree = recorded.full
        self._offsets: dict[tuple[int, int], int] = {}  # (descriptor, file): where the next write goes
        self._line = 0

    def hears(self, start: int, name: str, text: str, result: int, path: str) -> None:
        """One call that succeeded. `start` is the line at which it began."""
        self._line = max(self._line + 1, start)
        words = arguments(text)
        if name in ("open", "openat", "creat"):
            self._opened(words, result, path)
        elif name in ("write", "writev", "pwrite64", "pwritev", "pwritev2"):
            self._written(name, words, result)
        elif name in ("fsync", "fdatasync", "syncfs", "sync"):
            self._synced(name, words, start)
        elif name == "lseek":
            if (node := self._node(words[0].path)) is not None and words[0].fd is not None:
                self._offsets[words[0].fd, node] = result
        elif name in ("truncate", "ftruncate"):
            self._cut(words)
        elif "chmod" in name:
            self._mode(words)
        elif name in ("copy_file_range", "sendfile", "fallocate"):
            inside = [
                word.path for word in words if word.fd is not None and self._inner(word.path) is not None
            ]
            if inside and not (name == "sendfile" and self._inner(words[0].path) is None):
                self._to.unknown.append(f"{name} {inside}")
        else:
            self._named(name, words)

    # -- where ---------------------------------------------------------------------------------------

    def _inner(self, path: str) -> str | None:
        """The path from the root; None when it lies elsewhere."""
        if path == self._to.root:
            return ""
        return path[len(self._to.root) + 1 :] if path.startswith(f"{self._to.root}/") else None

    def _node(self, path: str) -> int | None:
        inner = self._inner(path)
        return None if inner is None else self._tree.find(inner)

    def _paths(self, words: list[Argument]) -> list[str]:
        """Each path that is named by a descriptor of a directory and a text, or by a text alone."""
        found, directory = [], None
        for word in words:
            if word.fd is not None:
                directory = word.path
            elif word.data is not None:
                text = word.data.decode(errors="surrogateescape")
                found.append(text if text.startswith("/") or directory is None else f"{directory}/{text}")
                directory = None
        return found

    def _place(self, path: str) -> tuple[int, str] | None:
        """The directory that has, or will have, the last name of a path, and that name."""
        inner = self._inner(path)
        if not inner:
            return None
        above, _, name = inner.rpartition("/")
        node = self._tree.find(above)
        return None if node is None or node not in self._tree.names else (node, name)

    # -- what ----------------------------------------------------------------------------------------

    def _do(self, change: Change) -> None:
        self._tree.apply(change)
        change.line = self._line
        self._to.changes.append(change)

    def _opened(self, words: list[Argument], result: int, path: str) -> None:
        flags = next((w.word for w in words if w.word.startswith(("O_", "0"))), "")
        place = self._place(path)
        if place is None or not ("O_CREAT" in flags or "O_TRUNC" in flags):
            if (node := self._node(path)) is not None:
                self._offsets[result, node] = (
                    len(self._tree.files.get(node, b"")) if "O_APPEND" in flags else 0
                )
            return
        directory, name = place
        if name.endswith("-shm"):
            return
        node = self._tree.names[directory].get(name)
        if node is None:
            node = self._tree.file()
            self._to.base.files[node] = b""
            mode = words[-1].word
            self._tree.modes[node] = int(mode, 8) & 0o755 if mode.startswith("0") else 0o644
            self._do(Change(f"create {self._inner(path)}", names=[(directory, name, node)]))
        elif "O_TRUNC" in flags and self._tree.files.get(node):
            self._do(Change(f"empty {self._inner(path)}", writes=[(node, 0, None)]))
        self._offsets[result, node] = len(self._tree.files[node]) if "O_APPEND" in flags else 0

    def _written(self, name: str, words: list[Argument], result: int) -> None:
        fd = words[0].fd
        if fd is None or (node := self._node(words[0].path)) is None or node not in self._tree.files:
            return
        data = b"".join(word.data for word in words[1:] if word.data is not None)[:result]
        if name.startswith("p"):
            offset = int(words[-1].word if name != "pwritev2" else words[-2].word)
        else:
            offset = self._offsets.get((fd, node), 0)
            self._offsets[fd, node] = offset + result
        self._do(Change(f"write {self._inner(words[0].path)}", writes=[(node, offset, data)]))

    def _cut(self, words: list[Argument]) -> None:
        path = words[0].path if words[0].fd is not None else self._paths(words)[0]
        if (node := self._node(path)) is not None and node in self._tree.files:
            change = Change(f"cut {self._inner(path)}", writes=[(node, int(words[-1].word), None)])
            self._do(change)

    def _mode(self, words: list[Argument]) -> None:
        path = words[0].path if words[0].fd not in (None, -1) and len(words) == 2 else self._paths(words)[0]
        if (node := self._node(path)) is not None and words[-1].word.startswith("0"):
            self._tree.modes[node] = int(words[-1].word, 8)

    def _named(self, name: str, words: list[Argument]) -> None:
        if name.startswith("symlink"):
            text = (words.pop(0).data or b"").decode(errors="surrogateescape")
            if (place := self._place(self._paths(words)[0])) is not None:
                self._set(name, place, self._tree.link(text))
            return
        places = [self._place(path) for path in self._paths(words)]
        if places[0] is None and (len(places) == 1 or places[1] is None):
            return
        if name.startswith("mkdir") and places[0] is not None:
            node = self._tree.directory()
            self._to.base.names[node] = {}
            mode = words[-1].word
            self._tree.modes[node] = int(mode, 8) & 0o755 if mode.startswith("0") else 0o755
            self._set(name, places[0], node)
        elif name.startswith(("unlink", "rmdir")) and places[0] is not None:
            directory, last = places[0]
            self._do(Change(f"{name} {last}", names=[(directory, last, None)]))
        else:
            self._moved(name, places)

    def _moved(self, name: str, places: list[tuple[int, str] | None]) -> None:
        source, target = places
        if source is None or target is None:
            self._to.unknown.append(f"{name} {places}")
            return
        node = self._tree.names[source[0]].get(source[1])
        if node is None:  # a socket
            return
        names: list[tuple[int, str, int | None]] = [(*target, node)]
        if name.startswith("rename"):
            names.insert(0, (*source, None))
        self._do(Change(f"{name} {source[1]} to {target[1]}", names=names))

    def _set(self, name: str, place: tuple[int, str], node: int) -> None:
        self._do(Change(f"{name} {place[1]}", names=[(*place, node)]))

    # -- syncs ---------------------------------------------------------------------------------------

    def _synced(self, name: str, words: list[Argument], start: int) -> None:
        """What was done before the sync began is for sure from now on."""
        node = self._node(words[0].path) if words else None
        everything = name.startswith("sync")
        if everything and words and self._inner(words[0].path) is None:
            return
        now = len(self._to.changes)
        for change in self._to.changes:
            if change.synced <= now or change.line > start:
                continue
            touched = {where for where, _, _ in change.writes} | {
                change.names[-1][0] for _ in change.names[-1:]
            }
            if everything or node in touched:
                change.synced = now
