"""An agent that dies at its n-th durable operation.

Durable is what the next life can see: changes of directories, syncs, commits of SQLite, what the keeper is
asked for (spawn, signal, note, open, close, forget, ...), and each flip of a port. The agent itself knows
nothing of this: its operations are counted from outside, by an audit hook and a few wrapped calls.

What happens when is told in a directory:

    DIRECTORY/armed   "EPISODE WHOM N": die before the N-th operation from now on, or where N is no number,
                      before the first in whose name that regular expression is found; WHOM is `agent`, or
                      `tree` for the keeper too.
    DIRECTORY/fired   it did; armed was renamed to this
    DIRECTORY/trace-EPISODE   one operation a line
    DIRECTORY/unsynced   what a rename made known that was not on the disk, see `unsynced.py`
    DIRECTORY/hold    the next agent does not begin while this is there
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tests.crash.unsynced import Unsynced

SO_ATTACH_REUSEPORT_CBPF = 51
CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.kill",
}
WRITES = re.compile(r"(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM) (\w+)")
RESULTS = {"running", "probation", "succeeded", "rolled-back", "failed", "interrupted"}
HARMLESS = {"hello", "tail", "alive"}  # asked of the keeper, and nothing is different afterwards


class Fate:
    """Counts, and strikes."""

    def __init__(self, directory: str) -> None:
        self._armed = os.path.join(directory, "armed")
        self.unsynced = Unsynced(lambda told: self._write("unsynced", told))
        self._directory = directory
        self._episode, self._count = "", 0
        self._lock = threading.RLock()
        self._inside = False

    def meets(self, what: str) -> None:
        """The operation `what` comes now."""
        with self._lock:
            if self._inside:
                return
            self._inside = True
            try:
                self._meet(what)
            finally:
                self._inside = False

    def _meet(self, what: str) -> None:
        try:
            with open(self._armed) as armed:
                episode, whom, at = armed.read().rstrip().split(" ", 2)
        except (OSError, ValueError):
            return
        if episode != self._episode:
            self._episode, self._count = episode, 0
        self._count += 1
        self._write(f"trace-{episode}", what)
        if str(self._count) == at or (not at.isdigit() and re.search(at, what)):
            os.rename(self._armed, os.path.join(self._directory, "fired"))
            if whom == "tree":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, name: str, line: str) -> None:
        with open(os.path.join(self._directory, name), "a") as file:
            file.write(f"{line}\n")

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event in CHANGES and not _in_vain(event, *arguments):
            self.meets(f"{event[3:]} {arguments[0]!r}")
            if event == "os.rename" and not self._inside:
                self.unsynced.renamed(*arguments)
            elif event in ("os.remove", "os.rmdir"):
                self.unsynced.removed(*arguments)
        elif event == "open" and not isinstance(arguments[0], int) and _creates(*arguments):
            self.meets(f"create {arguments[0]!r}")


def _in_vain(event: str, path: Any, *more: Any) -> bool:
    """Whether a change will not be one: a directory made that is there, a file removed that is not."""
    if event not in ("os.mkdir", "os.remove") or more[-1] != -1:  # the last one is a directory's descriptor
        return False
    return os.path.lexists(path) == (event == "os.mkdir")


def _creates(path: Any, mode: str | None, flags: Any) -> bool:
    """Whether opening this makes or empties a file."""
    made = isinstance(flags, int) and flags & os.O_CREAT
    return bool(made) and bool(flags & os.O_TRUNC or flags & os.O_EXCL or not os.path.lexists(path))


def wrap(fate: Fate) -> None:
    """Make the operations of which no audit hook hears be counted."""
    from agent.keeper.connection import Connection
    from agent.kit import files

    def counted(name: str, real: Callable[..., Any], done: Callable[[Any, int], None]) -> Callable[..., Any]:
        def call(fd: Any) -> Any:
            fate.meets(name)
            began, result = time.time_ns(), real(fd)
            done(fd, began)
            return result

        return call

    synced, all_synced = fate.unsynced.synced, fate.unsynced.all_synced
    os.fsync, os.fdatasync = counted("fsync", os.fsync, synced), counted("fdatasync", os.fdatasync, synced)

    class Libc:
        """The C library as `agent.kit.files` uses it."""

        sync_file_range = staticmethod(files._libc.sync_file_range)

        syncfs = staticmethod(counted("syncfs", files._libc.syncfs, lambda _, began: all_synced(began)))

    files._libc = Libc()  # type: ignore[assignment]

    class Mortal(sqlite3.Connection):
        written: ClassVar[set[str]] = set()  # tables of the transaction, and words that are put there

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN"):
                self.written.clear()
            elif sql.startswith("COMMIT"):
                fate.meets(" ".join(["commit", *sorted(self.written)]))
            elif found := WRITES.match(sql):
                values = arguments[0] if arguments else ()
                self.written.update(value for value in values if value in RESULTS)
                self.written.add(found[1])
            return super().execute(sql, *arguments)

    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, **{"factory": Mortal, **k})

    post = Connection.post

    def mortal_post(self: Connection, message: dict[str, Any], *more: Any) -> int:
        verb = message["do"]
        told = f"{verb} {message.get('key', message.get('child', ''))!s:.60}"
        if verb not in HARMLESS:
            fate.meets(f"ask {told}")
        number = post(self, message, *more)
        if verb not in HARMLESS:
            fate.meets(f"asked {told}")
        return number

    Connection.post = mortal_post  # type: ignore[method-assign,assignment]

    setsockopt = socket.socket.setsockopt

    def flip(self: socket.socket, level: int, name: int, *value: Any) -> None:
        if name == SO_ATTACH_REUSEPORT_CBPF:
            fate.meets("flip")
        setsockopt(self, level, name, *value)

    socket.socket.setsockopt = flip  # type: ignore[method-assign,assignment]


def live(directory: str, words: Sequence[str]) -> int:
    """An agent's life, or what fate leaves of it; its exit code."""
    fate = Fate(directory)
    while os.path.exists(os.path.join(directory, "hold")):
        time.sleep(0.005)
    wrap(fate)
    sys.addaudithook(fate.heard)
    from agent.__main__ import main

    return main(["_agent", *words])
