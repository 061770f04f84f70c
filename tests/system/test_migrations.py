"""Migrations in whole deploys: who serves meanwhile, what a failure leaves behind, which ways back are open.

EMPTYBOX_MIGRATION_SECONDS says how long the migrations under load last (`make migrations`: two minutes).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.postgres import PASSWORD, Postgres
from tests.kit.world import World

SECONDS = float(os.environ.get("EMPTYBOX_MIGRATION_SECONDS", "1"))
HEALTH = {"deadline": "20s", "probation": "300ms"}
FIRST = {"V1__items.sql": "CREATE TABLE item (id INTEGER PRIMARY KEY)"}
SECOND = {"V2__two.sql": "INSERT INTO item VALUES (2)", "U2__two.sql": "DELETE FROM item WHERE id = 2"}


def sql(files: dict[str, str], kind: str = "expand", **keys: Any) -> dict[str, Any]:
    """Parts of an app whose SQL files are rendered, and whose database outlives releases."""
    return {
        "dirs": {"state": "data"},
        "files": [{"target": f"sql/{name}", "content": text} for name, text in files.items()],
        "migrate": {"name": "schema", "sql": "sql", "database": "sqlite:data/app.db", "kind": kind, **keys},
        "health": HEALTH,
    }


def rows(world: World, query: str = "SELECT id FROM item ORDER BY id") -> list[Any]:
    """What stands in the database."""
    path = next(world.box.data.glob("apps/web/dirs/state/app.db"))
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def condition(app: dict[str, Any], kind: str = "RollbackBlocked") -> dict[str, Any]:
    """A condition of an app in /status."""
    return next((c for c in app["conditions"] if c["type"] == kind), {"status": "False", "message": ""})


async def blocked(world: World) -> str:
    """Wait until a way back is blocked; why it is."""

    async def told() -> str:
        found = condition(await world.box.app())
        return str(found["message"]) if found["status"] == "True" else ""

    why: str = await world.box.until(told)
    return why


async def step_under_way(world: World, name: str) -> dict[str, Any]:
    """Wait until a step runs; as /status has it."""

    async def running() -> dict[str, Any] | None:
        run = (await world.box.app()).get("run")
        found: list[dict[str, Any]] = [s for s in run["steps"] if s["name"] == name] if run else []
        return found[0] if found and found[0]["state"] == "running" else None

    step: dict[str, Any] = await world.box.until(running)
    return step


async def cli(world: World, *words: str) -> tuple[int, str]:
    """The command line, on this box: its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", *words, "--socket", str(world.box.data / "agent.sock"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


# -- under load -----------------------------------------------------------------------------------------


async def test_a_long_expand_loses_no_request(box: Box) -> None:
    world = World(box)
    await world.running()
    world.pull("hold")
    command = world.shell("while test -e $W/hold; do sleep 0.05; done")
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, migrate={"command": command, "timeout": "10m"}, health=HEALTH)
        step = await step_under_way(world, "migrate")
        assert step["started"]
        await asyncio.sleep(SECONDS)
        world.release("hold")
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}


async def test_in_a_long_exclusive_every_request_is_held_or_gets_the_page(box: Box) -> None:
    world = World(box)
    await world.running(maintenance={"hold": "300ms"}, health=HEALTH)
    world.pull("hold")
    command = world.shell("while test -e $W/hold; do sleep 0.05; done")
    migrate = [{"name": "rewrite", "command": command, "timeout": "10m", "kind": "exclusive"}]
    async with Load(box.port) as load:
        parts: dict[str, Any] = {"maintenance": {"hold": "300ms"}, "health": HEALTH}
        await world.deploy("2.0", push=True, migrate=[*migrate, {"name": "x", "command": ["true"]}], **parts)
        await step_under_way(world, "migrate rewrite")
        await world.only()  # nobody of either version runs meanwhile

        async def page() -> str:
            status, text = await box.get("/", {"Accept": "text/plain"})
            return text if status == 503 else ""

        assert "Migrating data" in await box.until(page)
        assert "rewrite" in await page()
        await asyncio.sleep(SECONDS)
        world.release("hold")
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "503", "2.0"}


# -- ways back ------------------------------------------------------------------------------------------


async def test_across_expand_an_automatic_rollback_is_a_flip(box: Box) -> None:
    world = World(box)
    await world.running(**sql(FIRST))
    parts = {**sql({**FIRST, **SECOND}), "health": {**HEALTH, "probation": "20s", "failures": 1}}
    async with Load(box.port) as load:
        await world.deploy("2.0", push=True, **parts)
        await box.app_is(state="probation", current__version="2.0", run=None)
        world.pull("sick-2.0")
        await box.app_is(state="degraded", current__version="1.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert rows(world) == [(2,)]
    assert condition(await box.app())["status"] == "False"


@pytest.mark.parametrize("down", [True, False])
async def test_across_reversible_the_way_back_runs_the_down_only_where_that_is_allowed(
    box: Box, down: bool
) -> None:
    world = World(box)
    await world.running(**sql(FIRST))
    parts = {**sql({**FIRST, **SECOND}, "reversible"), "rollback": {"down": down}}
    parts["health"] = {**HEALTH, "probation": "20s", "failures": 1}
    await world.deploy("2.0", push=True, **parts)
    await box.app_is(state="probation", current__version="2.0", run=None)
    assert rows(world) == [(2,)]
    world.pull("sick-2.0")
    if down:
        await box.app_is(state="degraded", current__version="1.0")
        await box.serving("1.0")
        assert rows(world) == []
        return
    why = await blocked(world)
    assert "version 1.0 cannot run on today's data: reversible migration schema of version 2.0" in why
    assert "rollback: {down: true}" in why
    await box.serving("2.0")  # unwell, but there is nothing better
    assert rows(world) == [(2,)]
    await world.deploy("3.0", push=True, **sql({**FIRST, **SECOND}))
    await box.proven("3.0")
    assert condition(await box.app())["status"] == "False"


@pytest.mark.parametrize("down", [True, False])
async def test_a_new_version_that_never_gets_healthy_after_a_breaking_migration(box: Box, down: bool) -> None:
    world = World(box)
    await world.running(**sql(FIRST))
    world.pull("sick-2.0")
    kind = "reversible" if down else "irreversible"
    parts = {**sql({**FIRST, **SECOND}, kind), "rollback": {"down": down}}
    parts["health"] = {**HEALTH, "deadline": "1s"}
    commit = await world.deploy("2.0", **parts)
    _, answer = await box.webhook(commit, wait=True)
    assert answer["failure"]["reason"] == "ProbeFailed"
    if down:
        await box.serving("1.0")
        assert rows(world) == []
        return
    assert "irreversible migration schema of version 2.0 ran" in await blocked(world)
    status, _ = await box.get()
    assert status == 503
    await world.only()
    parts["health"] = HEALTH
    await world.deploy("3.0", push=True, **{**parts, **sql({**FIRST, **SECOND})})
    await box.proven("3.0")  # with the next version all is well
    assert rows(world) == [(2,)]


async def test_contract_waits_for_probation_and_closes_every_way_back_until_somebody_vouches(
    box: Box,
) -> None:
    world = World(box)
    await world.running()
    ((_, old),) = world.puppets()
    text = f"kill -0 {old} && echo beside >> $W/problems; echo x >> $W/contracted"
    contract = {"name": "tidy", "command": world.shell(text), "kind": "contract"}
    await world.deploy("2.0", push=True, migrate=[contract], health=HEALTH)
    await world.said("contracted")
    assert (await box.app())["good"]["version"] == "2.0"
    assert world.lines("problems") == []
    await world.only("2.0")  # the older one is gone
    await box.app_is(run=None, state="running")
    assert (await box.history())[0]["steps"][-1]["kind"] == "contract"
    code, said = await cli(world, "rollback", "web")
    assert code != 0
    assert "contract migration tidy of version 2.0" in said
    commit = await world.deploy("1.0")
    _, answer = await box.webhook(commit, wait=True)
    assert (answer["result"], answer["failure"]["reason"]) == ("failed", "SchemaTooNew")
    assert "contract migration tidy" in (await cli(world, "plan"))[1]
    assert (await box.app())["current"]["version"] == "2.0"
    code, said = await cli(world, "sync", "--override", "restored the backup of 22:00")
    assert code == 0, said
    await box.proven("1.0")
    assert world.lines("contracted") == ["x"]


async def test_plan_says_what_a_rollback_would_do(box: Box) -> None:
    world = World(box)
    await world.running()
    contract = {"name": "tidy", "command": ["true"], "kind": "contract"}
    grow = {"name": "grow", "command": ["true"], "kind": "irreversible"}
    await world.deploy("2.0", migrate=[grow, contract])
    _, shown = await cli(world, "plan")
    assert "irreversible: the app is down meanwhile" in shown
    assert "rollback: not across grow" in shown
    assert "after probation: migrate tidy" in shown


async def test_a_command_runs_once_for_a_release(box: Box) -> None:
    world = World(box)
    migrate = {"command": world.shell("echo x >> $W/ran")}
    await world.running(migrate=migrate, health=HEALTH)
    await world.deploy(
        "1.0", push=True, migrate=migrate, health=HEALTH, env={"WORLD": str(world.path), "A": "b"}
    )
    await box.until(lambda: _runs(box, 2))
    await box.proven("1.0")
    assert len(world.lines("ran")) == 1
    await world.deploy("2.0", push=True, migrate=migrate, health=HEALTH)
    await box.proven("2.0")
    assert len(world.lines("ran")) == 2


async def _runs(box: Box, count: int) -> bool:
    return len(await box.history()) >= count


async def test_two_agents_at_once_migrate_one_database_once(tmp_path: Path) -> None:
    server = await asyncio.to_thread(Postgres)
    try:
        name = await asyncio.to_thread(server.database)
        first = {"V1__items.sql": "CREATE TABLE item (id INTEGER); SELECT pg_advisory_xact_lock(42)"}
        secret = {"env": "DB_PASSWORD"}
        url = server.url(name).replace(PASSWORD, "{{ secrets.PW }}")
        async with Box(tmp_path / "one") as one, Box(tmp_path / "two") as two:
            for box in (one, two):
                box.settings["--secret-env"] = "DB_PASSWORD"
                parts = {**sql(first, database=url), "secrets": {"PW": secret}}
                await World(box).deploy("1.0", **parts)

            async def one_waits() -> bool:
                return "waiting for emptybox web@" in "\n".join(one.output + two.output)

            with server.session(name) as session:
                await asyncio.to_thread(session.execute, "SELECT pg_advisory_lock(42)")
                await asyncio.gather(
                    *(box.start(environment={"DB_PASSWORD": PASSWORD}) for box in (one, two))
                )
                await one.until(one_waits)
            await asyncio.gather(*(box.proven("1.0") for box in (one, two)))
            said = "\n".join(one.output + two.output)
            assert PASSWORD not in said
        query = "SELECT script, state FROM emptybox_history"
        assert await asyncio.to_thread(server.query, name, query) == [("V1__items.sql", "done")]
    finally:
        await asyncio.to_thread(server.close)


# -- killed in the middle -------------------------------------------------------------------------------


async def test_kill_9_of_the_agent_while_nobody_may_run(box: Box) -> None:
    world = World(box)
    await world.running(maintenance={"hold": "300ms"}, health=HEALTH)
    world.pull("hold")
    text = "echo x >> $W/ran; while test -e $W/hold; do sleep 0.05; done; echo y >> $W/ended"
    migrate = [{"name": "rewrite", "command": world.shell(text), "kind": "irreversible"}]
    await world.deploy("2.0", push=True, migrate=migrate, maintenance={"hold": "300ms"}, health=HEALTH)
    await world.said("ran")
    agent = await box.agent_pid()
    await world.kill_agent()

    async def another() -> bool:
        return await box.answers() and await box.agent_pid() != agent

    await box.until(another)

    async def page() -> bool:
        return (await box.get())[0] == 503

    await box.until(page)
    await world.only()  # not the old one either: it could not run on what comes
    world.release("hold")
    await box.proven("2.0")
    assert world.lines("ran") == ["x"]
    assert world.lines("ended") == ["y"]


async def test_kill_9_of_everything_in_a_transaction_brings_the_old_version_back(box: Box) -> None:
    world = World(box)
    await world.running(**sql(FIRST))
    slow = (
        "INSERT INTO item VALUES (2); CREATE TABLE slow AS WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000000) SELECT count(*) AS c FROM n;"
    )
    await world.deploy("2.0", push=True, **sql({**FIRST, "V2__slow.sql": slow}, "irreversible"))
    await step_under_way(world, "migrate")
    journal = next(box.data.glob("apps/web/dirs/state")) / "app.db-journal"

    async def writing() -> bool:
        return journal.exists() and journal.stat().st_size > 0

    await box.until(writing)
    runner = [pid for pid in _descendants(box) if "migrator/run.py" in _command_line(pid)]
    await world.kill_everything()
    for pid in runner:
        await _until_gone(box, pid)
    box.settings["--repo"] = "http://127.0.0.1:9/nowhere.git"  # and without Git
    await box.start()
    await box.serving("1.0")
    assert rows(world) == []
    assert condition(await box.app())["status"] == "False"


def _descendants(box: Box) -> list[int]:
    assert box.process is not None
    found = [box.process.pid]
    for pid in found:
        tasks = Path(f"/proc/{pid}/task/{pid}/children")
        found += [int(word) for word in tasks.read_text().split()] if tasks.exists() else []
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def _until_gone(box: Box, pid: int) -> None:
    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await box.until(gone)
