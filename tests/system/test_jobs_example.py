"""examples/jobs as it lies there: the tasks of a container that exists for one task."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.kit.box import Box
from tests.kit.git_server import Content
from tests.kit.operator import run

EXAMPLE = Path(__file__).parents[2] / "examples/jobs"
STATE = (EXAMPLE / "state.yaml").read_text()


async def push(box: Box, state: str = STATE, **more: Content) -> None:
    """The example's repository, with another state or further tasks if they are given."""
    files: dict[str, Content] = {f"tasks/{file.name}": file.read_text() for file in EXAMPLE.glob("tasks/*")}
    await box.commit(state, files | {f"tasks/{name}.sql": content for name, content in more.items()})


async def test_the_search_says_what_it_finds_and_fails_with_a_message_without_its_file(box: Box) -> None:
    await push(box)
    told = await run(*box.command("once")[4:], "--app", "search")
    assert (told.code, told.out) == (0, "an important line\nthe most important of all\n")

    await push(box, STATE.replace("      - {template: tasks/data.txt, target: data.txt}\n", ""))
    told = await run(*box.command("once")[4:], "--app", "search")
    assert (told.code, told.out) == (1, "data.txt is missing\n")


async def test_the_values_are_printed_each_on_its_line(box: Box) -> None:
    await push(box)
    told = await run(*box.command("once")[4:], "--app", "values")
    assert (told.code, told.out) == (0, "alpha\nbeta\n")


async def test_the_sql_files_are_run_against_the_database_each_once(box: Box) -> None:
    await push(box)
    for _ in range(2):
        told = await run(*box.command("once")[4:], "--app", "database")
        assert (told.code, told.out.splitlines()[-1]) == (0, "the database is up to date"), told.err
        with contextlib.closing(sqlite3.connect(box.data / "apps/database/dirs/state/test.db")) as database:
            assert database.execute("SELECT name FROM people ORDER BY id").fetchall() == [
                ("Ada",),
                ("Grace",),
            ]

    broken = "CREATE TABLE people (id INTEGER);\n"
    second = "      - {template: tasks/V2__insert_test_data.sql, target: sql/V2__insert_test_data.sql}\n"
    await push(
        box,
        STATE.replace(second, second + second.replace("V2__insert_test_data", "V3__again")),
        V3__again=broken,
    )
    told = await run(*box.command("once")[4:], "--app", "database")
    assert told.code == 1
    assert "MigrationFailed" in told.err
