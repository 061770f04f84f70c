"""The data directory: what lies where, who may use it, and of which format it is.

DATA/
  format            version of this layout
  box               random id of this very directory, marks every child's environment
  lock              flock(2) of the one agent; holds its pid
  journal.db        syncs, runs, steps, quarantine
  state/COMMIT/     exported commits of the state repository; state/current names the last good one
  store/trees/ID/   releases, immutable
  apps/APP/
    deployments/SPEC/   spec, pair, links `release` and `config`; `view` of what places show
    generations/ID/     rendered files
    instances/ID/       what a child sees as its working directory
    dirs/KIND/          state, cache and logs: outlive every release
    places              the links outside that are ours
    current, good       links into deployments: the truth about what serves
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from pathlib import Path

from agent.domain.errors import OperatorNeeded
from agent.kit.files import sync_directory, write_atomically

FORMAT = 1


class DataDirectory:
    """One data directory, locked for this process from `open` to `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.store = root / "store"
        self.apps = root / "apps"
        self.journal = root / "journal.db"
        self.box = ""
        self._lock = -1

    def open(self) -> None:
        """Create what is missing, take the lock, check the format.

        Raises OperatorNeeded: DataNotUsable, DataInUse (names the pid), DataNewer.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._sweep()
            for directory in (self.state, self.store, self.apps):
                directory.mkdir(exist_ok=True)
            self._check_format()
            self.box = self._box_id()
        except OSError as error:
            raise OperatorNeeded(
                "DataNotUsable",
                f"the data directory cannot be used: {error.strerror}",
                where=str(error.filename or self.root),
                remedy="make it writable for this user, or name another with --data",
            ) from error

    def close(self) -> None:
        """Let the lock go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        path = self.root / "lock"
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self._lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # which flock(2) does not mind
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            self.close()
            raise OperatorNeeded(
                "DataInUse",
                f"another agent (pid {owner}) uses this data directory",
                where=str(self.root),
                remedy="stop it, or name another directory with --data",
            ) from None
        with contextlib.suppress(OSError):  # for people only, and no reason not to begin on a bad disk
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def ask(self) -> None:
        """Write something, and wait until the disk has it. Whether it refuses is told elsewhere."""
        with contextlib.suppress(OSError):
            lock = os.open(self.root / "lock", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                os.fsync(lock)
            finally:
                os.close(lock)

    def _sweep(self) -> None:
        """Remove what an agent that was killed left half-made: files, and its socket (`UnixListener`)."""
        for pattern in (".*.tmp", ".*~"):
            for path in self.root.glob(pattern):
                if not path.is_dir():
                    path.unlink()

    def _check_format(self) -> None:
        path = self.root / "format"
        try:
            found = path.read_text().strip()
        except FileNotFoundError:
            write_atomically(path, f"{FORMAT}\n".encode())
            return
        if not found.isdigit() or int(found) > FORMAT:
            raise OperatorNeeded(
                "DataNewer",
                f"the data directory has format {found!r}, this emptybox knows up to {FORMAT}",
                where=str(path),
                remedy="run the newer emptybox, or name another directory with --data",
            )

    def _box_id(self) -> str:
        """The id, made anew for a copy: two directories with one id would end each other's children."""
        path, info = self.root / "box", self.root.stat()
        here = f"{info.st_dev:x}:{info.st_ino:x}"
        try:
            box, _, place = path.read_text().strip().partition(" ")
        except FileNotFoundError:
            box = place = ""
        if not box or place != here:
            box = secrets.token_hex(8)
            write_atomically(path, f"{box} {here}\n".encode())
        return box

    def salt(self) -> str:
        """Random, this directory's own, and for the agent alone; see `AppSpec.salt`. Raises OSError."""
        path = self.root / "salt"
        try:
            found = path.read_text().strip()
        except FileNotFoundError:
            found = ""
        if not found:
            found = secrets.token_hex(16)
            write_atomically(path, f"{found}\n".encode(), 0o600)
        return found

    def app(self, name: str) -> AppDirectory:
        """The directory of one app, made if it is not there. Raises OSError."""
        directory = AppDirectory(self, name)
        directory.make()
        return directory

    def all_apps(self) -> list[str]:
        """Names of all apps that ever had anything here."""
        return sorted(path.name for path in self.apps.iterdir() if path.is_dir())

    def known_apps(self) -> list[str]:
        """Names of the apps that have a current deployment."""
        return sorted(p.name for p in self.apps.iterdir() if (p / "current").is_symlink())


class AppDirectory:
    """Paths of one app. `make` makes what is not there."""

    def __init__(self, data: DataDirectory, name: str) -> None:
        self.name = name
        self.store = data.store
        self.root = data.apps / name
        self.deployments = self.root / "deployments"
        self.generations = self.root / "generations"
        self.instances = self.root / "instances"
        self.dirs = self.root / "dirs"

    def make(self) -> None:
        """Make what is not there; where all is, nothing is written. Raises OSError."""
        fresh = not self.root.is_dir()
        for directory in (self.deployments, self.generations, self.instances, self.dirs):
            if not directory.is_dir():  # mkdir(2) waits for a disk that hangs even then
                directory.mkdir(parents=True, exist_ok=True)
        if fresh:
            sync_directory(self.root.parent)
