"""Programs in containers that say something of themselves, read their files again, or have data."""

from __future__ import annotations

import json
import secrets
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import sandbox
from tests.kit.box import Box
from tests.kit.containers import Tree, left, need, shell, state
from tests.kit.operator import run

ALIVE = {"alive": "300ms", "deadline": "30s", "probation": "100ms"}


@pytest.fixture(autouse=True)
def _runtime() -> None:
    sandbox.as_root()
    need("runc", "busybox")


@pytest.fixture
def name() -> str:
    """An app's name that no other test has: its control groups are looked for."""
    return f"app-{secrets.token_hex(4)}"


@pytest.fixture
async def near() -> AsyncIterator[Box]:
    """A box whose path is so short that a socket in it has room for its own (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="emptybox-") as directory:
        async with Box(Path(directory)) as box:
            yield box


async def test_it_says_that_it_is_ready_reads_changed_files_again_and_is_ended_when_it_falls_silent(
    near: Box, name: str, tmp_path: Path
) -> None:
    box = near
    source = Path(__file__).with_name("voiced.c").read_text()
    tree: Tree = {"voiced": sandbox.compiled(source, tmp_path / "voiced", "-static").read_bytes()}

    def wanted(text: str) -> dict[str, Any]:
        return state(
            box, name, tree,
            run={"driver": "oci", "command": ["/voiced"], "watchdog": "3s", "isolation": "strict"},
            health={"notify": "systemd", "deadline": "30s", "probation": "100ms"},
            files=[{"content": f"{text}\n", "target": "etc/app.conf", "on_change": "reload"}],
            dirs={"state": "data"},
        )  # fmt: skip

    await box.commit(wanted("one"))
    await box.start()
    first = await box.app_is(name, state="running", good__version="1.0")
    pid = first["child"]["pid"]

    async def says_so() -> bool:
        return "has read it" in json.dumps(await box.app(name))

    await box.until(says_so)
    await box.webhook(await box.commit(wanted("two")))

    async def reads_two() -> bool:
        return any(line.endswith("| conf two") for line in box.output)

    await box.until(reads_two)
    await box.app_is(name, state="running", run=None, child__pid=pid)
    assert (box.data / "apps" / name / "dirs/state").is_dir()
    (box.data / "apps" / name / "dirs/state/silent").touch()

    async def is_another() -> bool:
        child = (await box.app(name))["child"]
        return bool(child["pid"]) and child["pid"] != pid

    await box.until(is_another)
    assert "has given no sign of life for 3 s" in "\n".join(box.output)
    (box.data / "apps" / name / "dirs/state/silent").unlink()
    await box.app_is(name, state="running", serving=True)
    assert await box.stop() == 0
    assert [line for line in box.output if "| conf " in line][-1].endswith("conf two")
    assert left(box, name) == []


@pytest.mark.parametrize("driver", ["exec", "oci"])
async def test_data_is_migrated_by_files_and_commands_under_both_drivers(
    box: Box, name: str, driver: str
) -> None:
    """The third of the jobs that a container is made for: a schema, its rows, and what a command does."""
    made = "test -d bin && echo $EMPTYBOX_VERSION > data/made; cat /proc/sys/kernel/hostname"
    schema = "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)"
    files = {
        "V1__initial_schema.sql": schema,
        "V2__insert_test_data.sql": "INSERT INTO person VALUES (1, 'Ada'), (2, 'Grace')",
    }
    program: dict[str, Any] = {"command": ["sh", "-c", "cat data/made; test -f data/app.db && echo there"]}
    if driver == "oci":
        program |= {"driver": "oci", "hostname": "HAL-9000"}
    app = {
        "job": program,
        "dirs": {"state": "data"},
        "files": [{"target": f"sql/{file}", "content": text} for file, text in files.items()],
        "migrate": [
            {"name": "schema", "sql": "sql", "database": "sqlite:data/app.db"},
            {"name": "made", "command": ["sh", "-c", made]},
        ],
    }
    await box.commit(state(box, name, shell(), **app))
    told = await run(*box.command("once")[4:], "--app", name)
    assert told.code == 0, told.err
    assert told.out.endswith("1.0\nthere\n")
    with sqlite3.connect(box.data / "apps" / name / "dirs/state/app.db") as database:
        assert database.execute("SELECT name FROM person ORDER BY id").fetchall() == [("Ada",), ("Grace",)]
    database.close()
    assert ("HAL-9000" in told.out) == (driver == "oci")
    assert left(box, name) == []


async def test_what_is_opened_of_the_host_is_seen_in_it_and_no_more_may_be_written(
    box: Box, name: str, tmp_path: Path
) -> None:
    for place in ("given", "taken"):
        (tmp_path / place).mkdir()
    (tmp_path / "given/file").write_text("from the host\n")
    here, agents = str(tmp_path), box.secret_file
    task = f"exec 2>/dev/null; cd {here}; cat given/file; touch given/more || echo no; echo y > taken/file; "
    task += f"cat {agents} || echo hidden; ls"
    isolation = {"tier": "strict", "read": [f"{here}/given", str(box.data)], "write": [f"{here}/taken"]}
    job = {"driver": "oci", "command": ["sh", "-c", task], "isolation": isolation}
    await box.commit(state(box, name, shell(), job=job))
    told = await run(*box.command("once")[4:], "--app", name)
    assert told.out.splitlines() == ["from the host", "no", "hidden", "given", "taken"], told.err
    assert (tmp_path / "taken/file").read_text() == "y\n"
    assert left(box, name) == []
