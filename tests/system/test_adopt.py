"""`socket: adopt`, the default: unchanged programs, swapped without a loss; and what is said otherwise."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import sandbox
from tests.kit.box import Box, Load
from tests.kit.operator import Operator
from tests.kit.ports import free_port

QUICK = {"http": "/healthz", "interval": "50ms", "deadline": "20s", "probation": "300ms"}
PLAIN = {"tcp": "main", "interval": "50ms", "deadline": "20s", "probation": "100ms"}
HASTY = {**PLAIN, "timeout": "500ms", "deadline": "2s"}  # for what cannot become healthy


async def mode_of(box: Box) -> tuple[str, str]:
    """Reason and message of the app's SocketMode condition."""
    app = await box.app()
    found = next(c for c in app["conditions"] if c["type"] == "SocketMode")
    return found["reason"], found["message"]


async def test_what_nobody_asked_for_is_adopted_and_swapped_under_load_without_a_loss(box: Box) -> None:
    await box.deploy("1.0", socket=None, health=QUICK)
    await box.start()
    await box.proven("1.0")
    assert (await mode_of(box))[0] == "Adopted"
    status, environment = await box.get("/environment")
    assert status == 200 and f"PORT={box.port}" in environment and "LISTEN_FDS" not in environment
    async with Load(box.port) as load:
        for version in ("2.0", "3.0", "4.0"):
            await box.deploy(version, push=True, socket=None, health=QUICK)
            await box.serving(version)
            await box.proven(version)
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0", "4.0"}


NGINX = """
worker_processes 2; error_log stderr; pid nginx.pid;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;
  scgi_temp_path tmp;
  server {{ listen {port}{reuse}; location / {{ default_type text/plain; return 200 "{version}\\n"; }} }}
}}
"""


@pytest.mark.parametrize("reuse", ["", " reuseport"])
async def test_an_nginx_that_goes_to_the_background_is_swapped_under_load_without_a_loss(
    box: Box, reuse: str
) -> None:
    nginx = sandbox.tool("nginx")

    def parts(version: str) -> dict[str, Any]:
        config = NGINX.format(port=box.port, reuse=reuse, version=version)
        command = [nginx, "-p", ".", "-e", "stderr", "-c", "nginx.conf"]
        return {
            "artifact": None,
            "files": [{"target": "nginx.conf", "content": config}],
            "run": {"command": command, "stop": {"signal": "QUIT"}},
            "socket": None,
            "health": {**QUICK, "http": "/"},
        }

    await box.deploy("1.0", **parts("1.0"))
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        for version in ("2.0", "3.0"):
            await box.deploy(version, push=True, **parts(version))
            await box.serving(version)
            await box.proven(version)
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0"}
    assert await box.stop() == 0


async def test_the_next_agent_goes_on_with_adopted_children(box: Box) -> None:
    await box.deploy("1.0", socket=None, health=QUICK)
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        for version in ("2.0", "3.0"):
            agent = await box.agent_pid()
            os.kill(agent, signal.SIGKILL)
            await box.until(box.answers)
            await box.deploy(version, push=True, socket=None, health=QUICK)
            await box.serving(version)
            await box.proven(version)
            assert await box.agent_pid() != agent
    assert load.failures == []


async def test_a_program_may_change_between_adopt_and_fd_beside_one_another(box: Box) -> None:
    await box.deploy("1.0", socket="adopt", health=QUICK)
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        for version, socket in (("2.0", "fd"), ("3.0", "adopt")):
            await box.deploy(version, push=True, socket=socket, health=QUICK)
            await box.serving(version)
            await box.proven(version)
    assert load.failures == []
    assert (await mode_of(box))[0] == "Adopted"


async def test_a_program_that_ends_well_and_leaves_a_helper_behind_is_started_again(box: Box) -> None:
    """Its tree lives on and the agent has its slot open: neither is taken for the program."""
    gone = box.directory / "gone"
    code = f"import os, signal, time\ngone = {str(gone)!r}\n{BIND}"
    code = code.replace("while found:", "while not os.path.exists(gone):").replace("signal.pause()", LEAVE)
    command = [sys.executable, "-S", "-c", code, str(box.port)]
    await box.deploy("1.0", **{**binding(), "run": {"command": command}})
    await box.start()
    await box.proven("1.0")
    gone.touch()
    await box.get()
    await box.until(lambda: has_line(box, "child ended with code 0"))
    await box.until(lambda: has_line(box, "version 1.0 serves", times=2))
    await box.app_is(state="running", serving=True)


async def has_line(box: Box, text: str, times: int = 1) -> bool:
    return sum(text in line for line in box.output) >= times


# -- what is said --------------------------------------------------------------------------------------

BIND = """
import signal, socket, sys, time
found = []
for port in sys.argv[1:]:
    found.append(socket.socket())
    found[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found[-1].bind(("0.0.0.0", int(port)))
    found[-1].listen()
while found: found[0].accept()[0].close()
signal.pause()
"""
LEAVE = """
os.unlink(gone)
if os.fork() == 0:
    for sock in found: sock.close()
    os.setsid()  # not before: with the socket it would be taken for who goes on as a daemon
    time.sleep(60)
"""


def binding(*ports: int, **more: Any) -> dict[str, Any]:
    """A program that binds these ports and accepts at the first."""
    command = [sys.executable, "-S", "-c", BIND, *map(str, ports)]
    return {"artifact": None, "run": {"command": command}, "socket": None, "health": PLAIN, **more}


async def failure_of(box: Box, version: str, **parts: Any) -> dict[str, Any]:
    """Deploy what fails; the failure."""
    await box.deploy(version, **parts)
    assert (await Operator(box)("sync")).code == 1
    found: dict[str, Any] = (await box.app_is(run=None))["last_failure"]
    return found


async def test_a_program_that_binds_another_port_or_none_is_told_which(box: Box) -> None:
    await box.deploy("1.0", **binding(box.port))
    await box.start()
    await box.proven("1.0")
    other = free_port()
    failure = await failure_of(box, "2.0", **binding(other, health=HASTY))
    assert failure["reason"] == "PortNotBound"
    assert failure["message"].startswith(f"the program listens on {other}, not on its port {box.port}")
    assert "$PORT" in failure["remedy"]
    failure = await failure_of(box, "3.0", **binding(health=HASTY))
    assert failure["reason"] == "PortNotBound"
    assert failure["message"].startswith(f"the program does not listen on its port {box.port}")
    await box.app_is(current__version="1.0", serving=True)


async def test_a_program_that_cannot_do_with_a_socket_of_another_family_is_told_of_it(box: Box) -> None:
    config = NGINX.format(port=box.port, reuse="", version="1.0")
    command = [sandbox.tool("nginx"), "-p", ".", "-e", "stderr", "-c", "nginx.conf"]
    await box.deploy(
        "1.0", artifact=None, socket=None, files=[{"target": "nginx.conf", "content": config}],
        run={"command": command}, listen={"main": {"port": box.port, "address": "::"}},
        health={"http": "/", "interval": "50ms", "deadline": "2s"},
    )  # fmt: skip
    await box.start()
    failure = (await box.app_is(state="failed", run=None))["last_failure"]
    assert failure["reason"] == "ProbeFailed"
    assert "it bound an IPv4 address, and its port has an IPv6 one" in failure["message"]
    assert "0.0.0.0" in failure["remedy"]


async def test_a_program_has_to_bind_every_port_before_clients_come(box: Box) -> None:
    second = free_port()
    listen = {"main": box.port, "admin": second}
    alive = {"alive": "100ms", "deadline": "20s", "probation": "100ms"}
    await box.deploy("1.0", **binding(box.port, second, listen=listen, health=alive))
    await box.start()
    await box.proven("1.0")
    failure = await failure_of(
        box, "2.0", **binding(box.port, listen=listen, health={**alive, "deadline": "1s"})
    )
    assert failure["reason"] == "PortNotBound"
    assert failure["message"] == f"the program does not listen on its port {second}"
    await box.app_is(current__version="1.0", serving=True)


async def test_a_private_port_that_both_versions_want_is_named_with_the_way_out(box: Box) -> None:
    private = free_port()
    await box.deploy("1.0", **binding(box.port, private))
    await box.start()
    await box.proven("1.0")
    failure = await failure_of(box, "2.0", **binding(box.port, private, env={"CHANGED": "1"}))
    assert failure["reason"] == "ChildExited"
    assert f"it also binds port {private}, which the running version has" in failure["message"]
    assert "swap: restart" in failure["remedy"]
    await box.deploy("3.0", swap="restart", **binding(box.port, private))
    assert (await Operator(box)("sync")).code == 0
    await box.proven("3.0")


# -- where it is not to be had -------------------------------------------------------------------------


class Sandboxed(Box):
    """A box where seccomp(2) is refused."""

    def command(self, verb: str = "run") -> list[str]:
        return [*sandbox.refusing(f"{sandbox.seccomp_number()}={errno.EPERM}"), *super().command(verb)]


@pytest.fixture
async def sandboxed(tmp_path: Path) -> AsyncIterator[Sandboxed]:
    async with Sandboxed(tmp_path) as box:
        yield box


async def test_where_it_is_refused_the_app_is_relayed_and_that_is_said(sandboxed: Sandboxed) -> None:
    box = sandboxed
    await box.deploy("1.0", socket=None, health=QUICK)
    await box.start()
    await box.proven("1.0")
    reason, message = await mode_of(box)
    assert reason == "Relayed"
    assert message.endswith(
        "adopt is not possible here: the kernel or a sandbox refuses seccomp notifications: "
        "Operation not permitted"
    )
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, socket=None, health=QUICK)
        await box.serving("2.0")
        await box.proven("2.0")
    assert load.failures == []


async def test_where_it_is_refused_a_restart_leaves_the_port_to_the_program(sandboxed: Sandboxed) -> None:
    box = sandboxed
    for version in ("1.0", "2.0"):
        await box.deploy(version, **binding(box.port, swap="restart"))
        if version == "1.0":
            await box.start()
        else:
            assert (await Operator(box)("sync")).code == 0
        await box.proven(version)
        assert (await mode_of(box))[0] == "OwnPort"
