"""An agent that dies at its n-th durable operation: `mortal_agent.py DIRECTORY VERB FLAGS`, below its keeper.

Durable is what the next life can see: changes of directories, syncs, commits of SQLite, what the keeper is
asked for (spawn, signal, note, open, close, forget, ...), and each flip of a port. The agent itself knows
nothing of this: its operations are counted from outside, by an audit hook and a few wrapped calls.

    DIRECTORY/armed   "EPISODE WHOM N": die before the N-th operation from now on, or where N is no number,
                      before the first in whose name that regular expression is found; WHOM is `agent`, or
                      `tree` for the keeper too.
    DIRECTORY/fired   it did; armed was renamed to this
    DIRECTORY/trace-EPISODE   one operation a line
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
from collections.abc import Callable
from typing import Any

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
HARMLESS = {"hello", "tail", "alive"}  # asked of the keeper, and nothing is different afterwards


class Fate:
    """Counts, and strikes."""

    def __init__(self, directory: str) -> None:
        self._armed = os.path.join(directory, "armed")
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
        with open(os.path.join(self._directory, f"trace-{episode}"), "a") as trace:
            trace.write(f"{what}\n")
        if str(self._count) == at or (not at.isdigit() and re.search(at, what)):
            os.rename(self._armed, os.path.join(self._directory, "fired"))
            if whom == "tree":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event in CHANGES:
            self.meets(f"{event[3:]} {arguments[0]!r}")
        elif (
            event == "open"
            and not isinstance(arguments[0], int)
            and isinstance(arguments[2], int)
            and arguments[2] & os.O_CREAT
        ):
            self.meets(f"create {arguments[0]!r}")


def wrap(fate: Fate) -> None:
    """Make the operations of which no audit hook hears be counted."""
    from agent.keeper.connection import Connection
    from agent.kit import files

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            fate.meets(name)
            return real(*arguments)

        return call

    os.fsync, os.fdatasync = counted("fsync", os.fsync), counted("fdatasync", os.fdatasync)

    class Libc:
        """The C library as `agent.kit.files` uses it."""

        sync_file_range = staticmethod(files._libc.sync_file_range)

        syncfs = staticmethod(counted("syncfs", files._libc.syncfs))

    files._libc = Libc()  # type: ignore[assignment]

    class Mortal(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql.startswith("COMMIT"):
                fate.meets("commit")
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


if __name__ == "__main__":
    fate = Fate(sys.argv[1])
    while os.path.exists(os.path.join(sys.argv[1], "hold")):
        time.sleep(0.005)
    wrap(fate)
    sys.addaudithook(fate.heard)
    from agent.__main__ import main

    sys.exit(main(["_agent", *sys.argv[2:]]))
