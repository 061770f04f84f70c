"""Everything dies in a migration, and its version is superseded before anybody comes back to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.world import World


def words(box: Box) -> list[tuple[str, str]]:
    """What the ledger tells of each migration."""
    with closing(sqlite3.connect(f"file:{box.data}/journal.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT version, word FROM migrations ORDER BY number")
        return [(str(version), str(word)) for version, word in rows]


@pytest.mark.parametrize(
    ("kind", "database"), [("expand", None), ("irreversible", None), ("irreversible", "sqlite:data/app.db")]
)
async def test_a_superseded_migration_is_not_told_as_running_for_ever(
    box: Box, kind: str, database: str | None
) -> None:
    world = World(box)
    health = {"deadline": "20s", "probation": "300ms"}
    await world.running(health=health)
    world.pull("hold")
    command = world.shell("echo x >> $W/ran; while test -e $W/hold; do sleep 0.05; done")
    migrate: dict[str, Any] = {"name": "schema", "command": command, "kind": kind}
    parts: dict[str, Any] = {"migrate": [migrate], "health": health}
    if database is not None:  # whose history has that it was begun
        migrate["database"], parts["dirs"] = database, {"state": "data"}
    await world.deploy("2.0", push=True, **parts)
    await world.said("ran")
    await world.kill_everything()
    assert words(box) == [("2.0", "running")]
    repository, box.settings["--repo"] = box.repository.url, "http://127.0.0.1:9/nowhere.git"
    await world.deploy("3.0", health=health)
    await box.start()

    async def settled() -> bool:
        return words(box) == [("2.0", "failed")]

    await box.until(settled)
    if kind == "expand":
        await box.serving("1.0")
    else:  # nobody knows what it did: the old version does not run on that
        await box.until(lambda: _blocked(box))
        await world.only()
    await world.kill_everything()
    world.release("hold")
    box.settings["--repo"] = repository
    await box.start()
    await box.proven("3.0")
    assert words(box) == [("2.0", "failed")]
    assert world.lines("ran") == ["x"]


async def test_nor_is_one_of_an_app_of_which_nothing_else_is_left(box: Box) -> None:
    world = World(box)
    await world.running()
    await world.kill_everything()
    with closing(sqlite3.connect(box.data / "journal.db")) as connection, connection:
        connection.execute(
            "INSERT INTO migrations (number, app, name, kind, release, version, identity, word, began)"
            " VALUES (1, 'gone', 'schema', 'contract', 'r1', '1.0', 'x', 'running', 1)"
        )
    await box.start()
    await box.proven("1.0")

    async def settled() -> bool:
        return words(box) == [("1.0", "failed")]

    await box.until(settled)

    async def alone() -> bool:
        return list((await box.status())["apps"]) == ["web"]

    await box.until(alone)


async def _blocked(box: Box) -> bool:
    conditions = (await box.app())["conditions"]
    return any(c["type"] == "RollbackBlocked" and c["status"] == "True" for c in conditions)


async def test_a_contract_migration_cut_off_is_not_told_as_done_because_its_version_serves(box: Box) -> None:
    world = World(box)
    health = {"deadline": "20s", "probation": "100ms"}
    await world.running(health=health)
    world.pull("hold")
    command = world.shell("echo x >> $W/ran; while test -e $W/hold; do sleep 0.02; done")
    contract = {"name": "tidy", "command": command, "kind": "contract"}
    await world.deploy("2.0", push=True, migrate=[contract], health=health)
    await world.said("ran")
    await world.kill_everything()
    await box.start()
    await world.said("ran", 2)
    world.release("hold")

    async def done() -> bool:
        return words(box)[-1] == ("2.0", "done")

    await box.until(done)
    await box.app_is(run=None, state="running")
    told = [(run["result"], [step["kind"] for step in run["steps"]][-1]) for run in await box.history()]
    assert told[:2] == [("succeeded", "contract"), ("interrupted", "contract")]


@pytest.mark.parametrize("whom", ["agent", "tree"])
async def test_what_is_taken_back_when_somebody_dies_is_settled_and_the_older_version_serves(
    box: Box, whom: str
) -> None:
    world = World(box)
    health = {"deadline": "20s", "probation": "100ms"}
    await world.running(health=health)
    down = world.shell("echo x >> $W/undone; while test -e $W/hold; do sleep 0.02; done")
    schema = {"name": "schema", "command": ["/bin/true"], "down": down, "kind": "reversible"}
    await world.deploy("2.0", push=True, migrate=[schema], rollback={"down": True}, health=health)
    await box.proven("2.0")
    world.pull("hold")
    await world.deploy("1.0", push=True, health=health)
    await world.said("undone")
    assert words(box) == [("2.0", "undoing")]
    if whom == "tree":
        await world.kill_everything()
        repository, box.settings["--repo"] = box.repository.url, "http://127.0.0.1:9/nowhere.git"
        await box.start()

        async def settled() -> bool:
            return words(box) == [("2.0", "failed")]

        await box.until(settled)
        await world.only()  # nobody knows how much of it was taken back
        await world.kill_everything()
        box.settings["--repo"] = repository
        await box.start()
    else:
        await world.kill_agent()
    await world.said("undone", 2 if whom == "tree" else 1)
    world.release("hold")
    await box.proven("1.0")
    assert words(box) == [("2.0", "undone")]
    assert len(world.lines("undone")) == (2 if whom == "tree" else 1)
