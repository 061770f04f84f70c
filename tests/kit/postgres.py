"""A real PostgreSQL server on a free port, not as root, with its data in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.ports import free_port

if TYPE_CHECKING:
    import psycopg

PASSWORD = "not-a-secret-7d1f"
DEADLINE = 30.0


def programs() -> Path:
    """Where the server's programs are; without them the test is skipped, in CI it fails."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent


class Postgres:
    """One server. `close` ends it and takes its data away."""

    def __init__(self) -> None:
        self.programs = programs()
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="emptybox-pg-"))
        self._user = _other_user() if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        password = self.directory / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            for path in (self.directory, password):
                shutil.chown(path, self._user)
        subprocess.run(
            [self.programs / "initdb", "-D", self.directory / "data", "-U", "box", "--auth=scram-sha-256",
             f"--pwfile={password}", "--no-sync", "--locale=C", "--encoding=UTF8"],
            check=True, capture_output=True, user=self._user, cwd="/",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it, also after `kill`; returns when it answers."""
        until = time.monotonic() + DEADLINE
        while True:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", "-p", str(self.port),
                 "-k", self.directory, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
                 "-c", "shared_buffers=16MB", "-c", "max_connections=30"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                user=self._user, cwd="/",
            )  # fmt: skip
            while self._process.poll() is None:
                try:
                    self.query("postgres", "SELECT 1")
                    return
                except Exception:
                    if time.monotonic() > until:
                        raise
                time.sleep(0.05)
            if time.monotonic() > until:  # what is left of a killed one goes by itself
                raise AssertionError("PostgreSQL does not start")
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown": its data go anyway
            self._process.wait(DEADLINE)
        shutil.rmtree(self.directory, ignore_errors=True)

    def database(self) -> str:
        """Make a database; its name."""
        self._databases += 1
        name = f"db{self._databases}"
        self.query("postgres", f"CREATE DATABASE {name}")
        return name

    def url(self, database: str) -> str:
        """A URL with the password in it."""
        return f"postgresql://box:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def session(self, database: str) -> psycopg.Connection[Any]:
        """A session, which ends with its `with`."""
        import psycopg

        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def query(self, database: str, sql: str) -> list[Any]:
        """The rows of one statement."""
        with self.session(database) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []


def _other_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
