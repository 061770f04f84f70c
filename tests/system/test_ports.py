"""Ports on the real agent: changed, taken back, several at once, given up; and nobody pays for it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit.box import Box, Load
from tests.kit.operator import Operator
from tests.kit.ports import free_port
from tests.kit.programs import plain

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}


async def ask(port: int, path: str = "/", accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type and text; status 0 when nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.get(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept}) as answer,
        ):
            return answer.status, answer.content_type, await answer.text()
    except aiohttp.ClientError as error:
        return 0, "", str(error)


async def test_a_changed_port_opens_beside_the_old_one_and_nobody_is_refused_on_either(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    old, new = box.port, free_port()
    async with Load(old, lanes=2) as load:
        before = load.total
        await box.deploy("2.0", push=True, health={**QUICK, "probation": "700ms"}, listen=new)
        await box.app_is(current__version="2.0", state="probation", gate="open", serving=True)
        assert (await ask(new))[::2] == (200, "2.0\n")
        assert (await ask(old))[::2] == (200, "1.0\n")
        during = list(load.failures)
        assert load.total > before
        await box.proven("2.0")
    assert during == []
    assert set(load.answers) <= {"1.0", "503"}
    await box.until(lambda: silent(old))
    box.port = new
    async with Load(new) as load:
        await box.deploy("3.0", push=True, health=QUICK)
        await box.proven("3.0")
    assert load.failures == []
    assert set(load.answers) == {"2.0", "3.0"}


async def test_a_port_that_changes_back_on_a_bad_release_is_served_again(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    new = free_port()
    await box.deploy("2.0", "sickens", push=True, health={**QUICK, "probation": "20s"}, listen=new)
    await box.app_is(current__version="2.0")
    await box.app_is(state="degraded", current__version="1.0", run=None)
    assert await box.get() == (200, "1.0\n")
    await box.until(lambda: silent(new))
    async with Load(box.port) as load:
        await box.deploy("3.0", push=True, health=QUICK)
        await box.proven("3.0")
    assert load.failures == []


async def test_two_named_ports_are_handed_over_together(box: Box) -> None:
    second = free_port()
    program = Path(__file__).with_name("two_ports.py").read_text()
    listen = {"http": box.port, "metrics": {"port": second, "address": "127.0.0.1"}}

    async def deploy(version: str) -> None:
        artifact = plain(box, f"two-{version}", program.replace("VERSION", version))
        run = {"command": [sys.executable, "-S", "bin/web"]}
        health = {**QUICK, "http": "/", "port": "metrics"}
        await box.deploy(version, listen=listen, artifact=artifact, run=run, health=health)

    await deploy("1.0")
    await box.start()
    await box.proven("1.0")
    assert (await ask(box.port))[2] == "http 1.0\n"
    assert (await ask(second))[2] == "metrics 1.0\n"
    async with Load(box.port, 2) as load, Load(second, 2) as other:
        await deploy("2.0")
        assert (await Operator(box)("sync")).code == 0
    assert load.failures == other.failures == []
    assert set(load.answers) == {"http 1.0", "http 2.0"}
    assert set(other.answers) == {"metrics 1.0", "metrics 2.0"}


async def test_the_agent_may_die_while_the_ports_change(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    old, new = box.port, free_port()
    async with Load(old, lanes=2) as load:
        await box.deploy("2.0", push=True, health={**QUICK, "probation": "1s"}, listen=new)
        await box.app_is(current__version="2.0", state="probation")
        agent = await box.agent_pid()
        os.kill(agent, signal.SIGKILL)
        async with Load(new, lanes=2) as other:
            await box.until(lambda: another(box, agent))
            app = await box.app_is(current__version="2.0", state="probation")
            assert (app["gate"], app["serving"], app["good"]["version"]) == ("open", True, "1.0")
            during = list(load.failures)
            await box.proven("2.0")
    assert during == other.failures == []
    assert set(other.answers) == {"2.0"}
    await box.until(lambda: silent(old))


async def another(box: Box, agent: int) -> bool:
    try:
        return await box.agent_pid() != agent
    except aiohttp.ClientError:
        return False


async def silent(port: int) -> bool:
    return (await ask(port))[0] == 0


async def test_an_app_that_binds_its_port_itself_gets_its_old_port_back(box: Box) -> None:
    old, new = box.port, free_port()
    parts: dict[str, Any] = {"socket": None, "swap": "restart", "maintenance": {"hold": "0s"}}
    await box.deploy("0.9", "never", health={**QUICK, "deadline": "300ms"}, **parts)
    await box.start()
    await box.app_is(state="failed", run=None, last_failure__reason="ProbeFailed")
    await box.deploy("1.0", health=QUICK, **parts)
    operator = Operator(box)
    assert (await operator("sync")).code == 0
    await box.proven("1.0")

    await box.deploy("2.0", "never", health={**QUICK, "deadline": "300ms"}, listen=new, **parts)
    told = await operator("sync")
    assert (told.code, "rolled-back" in told.out) == (1, True)
    await box.app_is(state="degraded", current__version="1.0", gate="open", serving=True)
    assert await box.get() == (200, "1.0\n")
    assert await silent(new)

    await box.deploy("3.0", "sickens", health={**QUICK, "probation": "20s"}, listen=new, **parts)
    told = await operator("sync")
    assert (told.code, "rolled-back" in told.out) == (1, True)
    await box.app_is(state="degraded", current__version="1.0", gate="open", serving=True)
    assert await box.get() == (200, "1.0\n")
    assert await silent(new)

    await box.deploy("4.0", health=QUICK, listen=new, **parts)
    assert (await operator("sync")).code == 0
    await box.proven("4.0")
    assert (await ask(new))[2] == "4.0\n"
    assert await silent(old)


async def test_a_program_may_change_how_it_gets_its_socket_and_whether_it_has_one(box: Box) -> None:
    operator = Operator(box)
    kinds: list[dict[str, Any]] = [
        {"socket": None},
        {"socket": "fd"},
        {"socket": None, "listen": None, "health": {"alive": "50ms", "probation": "100ms"}},
        {"socket": "fd"},
    ]
    for number, parts in enumerate(kinds):
        version = f"{number}.0"
        listen = parts.get("listen", box.port)
        run = None
        if listen is None:
            run = {"command": ["sh", "-c", "while :; do sleep 0.1; done"]}
        given = {"health": QUICK, **parts, **({"run": run} if run else {})}
        await box.deploy(version, **given)
        if number:
            told = await operator("sync")
            assert told.code == 0, told.out
        else:
            await box.start()
        app = await box.proven(version)
        assert (app["gate"], app["serving"]) == ("open" if listen else None, True)
        if listen:
            assert await box.get() == (200, f"{version}\n")
        else:
            assert await silent(box.port)
