"""Databases of both kinds, and the program that migrates them, started as the agent starts it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.migrator import order as orders
from agent.migrator.order import Answer, Order, read_answer
from agent.migrator.run import carry_out
from tests.kit.postgres import Postgres

PROGRAM = Path(orders.__file__).with_name("run.py")
DEADLINE = 60.0


@dataclass
class Place:
    """A database and a directory of SQL files."""

    url: str
    query: Callable[[str], list[Any]]
    files: Path
    server: Postgres | None = None
    base: Order = field(init=False)

    def __post_init__(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        self.base = Order(
            app="web", name="schema", kind="expand", release="r1", version="1.0", host="box-1",
            database=self.url, sql=str(self.files), timeout=30.0, wait=30.0,
        )  # fmt: skip

    def put(self, name: str, text: str) -> None:
        (self.files / name).write_text(text)

    def begin(self, **changes: Any) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            env={**os.environ, orders.VARIABLE: replace(self.base, **changes).text()},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, **changes: Any) -> Answer:
        """Run it to its end, here: the same but for the process."""
        answer = carry_out(replace(self.base, **changes))
        told = read_answer([answer.line()])
        assert told is not None
        return told

    def command(self, text: str, **changes: Any) -> Answer:
        """Run a line of sh in place of SQL files."""
        return self.run(sql="", command=("/bin/sh", "-c", text), **changes)

    def history(self) -> list[tuple[str, str]]:
        """Script and state, oldest first."""
        return [tuple(row) for row in self.query("SELECT script, state FROM emptybox_history ORDER BY rank")]


def ended(process: subprocess.Popen[str]) -> tuple[str, Answer]:
    """Wait for the end of a migration: its output and its answer."""
    output, _ = process.communicate(timeout=DEADLINE)
    answer = read_answer(output.splitlines())
    assert answer is not None, output
    return output, answer


def until(condition: Callable[[], Any]) -> None:
    """Ask again until it is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    path = tmp_path / "app.db"

    def query(sql: str) -> list[Any]:
        connection = sqlite3.connect(path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    return Place(f"sqlite:{path}", query, tmp_path / "sql")


@pytest.fixture
def pg(postgres: Postgres, tmp_path: Path) -> Place:
    name = postgres.database()
    return Place(postgres.url(name), lambda sql: postgres.query(name, sql), tmp_path / "sql", postgres)


@pytest.fixture(params=["sqlite", "pg"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found
