"""Secrets through the whole agent: given to programs, masked everywhere else, rotated at run time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.box import Box, Load
from tests.kit.world import World

FIRST, SECOND = "the-first-password", "the-second-password"


@pytest.fixture
def root(box: Box) -> Path:
    path = box.directory / "secrets"
    path.mkdir()
    (path / "db").write_text(f"{FIRST}\n")
    box.settings = {"--secret-root": str(path)}
    return path


def db(world: World, file: str = "db") -> dict[str, Any]:
    """The parts of an app that give it the secret."""
    env = {"WORLD": str(world.path), "DB": "{{ secrets.DB }}"}
    return {"secrets": {"DB": {"file": file}}, "env": env}


def environment(world: World) -> dict[str, str]:
    """Of the puppet that began last."""
    pid = world.puppets()[-1][1]
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


async def everything_shown(box: Box) -> str:
    """All that the agent says about itself and its apps."""
    async with aiohttp.ClientSession() as session:
        texts = []
        for path in ("/status", "/history", "/metrics", "/"):
            async with session.get(box.url(path)) as answer:
                texts.append(await answer.text())
    own = [line for line in box.output if " | " not in line[:40]]  # the rest was said by the apps
    return "\n".join([*texts, *own])


async def test_a_program_gets_its_secrets_and_nobody_else_sees_them(box: Box, root: Path) -> None:
    world = World(box)
    files = [{"content": "password={{ secrets.DB }}", "target": "etc/db.conf"}]
    await world.running("1.0", **db(world), files=files)
    assert environment(world)["DB"] == FIRST
    rendered = next(box.data.glob("apps/web/generations/*/etc/db.conf"))
    assert rendered.read_text() == f"password={FIRST}"
    assert rendered.stat().st_mode & 0o777 == 0o600
    tell = ["/bin/sh", "-c", 'echo "the password is $DB"; exit 1']
    tasks = {"tell": {"after": ["unpack"], "command": tell}}
    commit = await world.deploy("2.0", **db(world), files=files, tasks=tasks)
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "failed")
    shown = await everything_shown(box) + json.dumps(answer)
    assert "the password is ***" in shown
    assert FIRST not in shown
    for path in box.data.rglob("*"):  # on disk, for the agent and the app only
        if path.is_file() and not path.is_symlink() and FIRST.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


async def test_a_secret_that_is_replaced_reaches_the_program_without_a_restart_of_the_agent(
    box: Box, root: Path
) -> None:
    world = World(box)
    await world.running("1.0", **db(world))
    agent, commit = await box.agent_pid(), (await box.app())["current"]["commit"]
    beside = root / ".db"
    beside.write_text(SECOND)
    async with Load(box.port) as load:
        os.rename(beside, root / "db")

        async def rotated() -> bool:
            return bool(world.puppets()) and environment(world).get("DB") == SECOND

        await box.until(rotated)
        await box.proven("1.0")
    assert load.failures == []
    assert await box.agent_pid() == agent
    assert (await box.app())["current"]["commit"] == commit


async def test_what_serves_comes_back_with_its_secrets_and_the_mask_knows_them(box: Box, root: Path) -> None:
    world = World(box)
    await world.running("1.0", **db(world))
    await world.kill_everything()
    await box.forge.stop()
    (root / "db").unlink()
    await box.start()
    await box.serving("1.0")
    assert environment(world)["DB"] == FIRST
    assert FIRST not in await everything_shown(box)


async def test_a_secret_that_is_missing_holds_the_app_up_until_it_comes(box: Box, root: Path) -> None:
    world = World(box)
    await world.running("1.0", **db(world))
    commit = await world.deploy("2.0", **db(world, "other"))
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["failure"]["reason"]) == (409, "SecretMissing")
    assert "other is not there" in json.dumps(answer)
    await box.serving("1.0")
    (root / "other").write_text(SECOND)
    await box.proven("2.0")
