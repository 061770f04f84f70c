"""What a service manager is told, and what a watchdog makes of an agent that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.keepers import DEADLINE, keeper, python, said

SLEEP = "import signal; print('ready'); signal.pause()"


class Listener:
    """The manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1))
        self._sock.setblocking(False)

    def environment(self, **more: str) -> list[str]:
        """A wrapper that starts a keeper below this manager."""
        variables = {"NOTIFY_SOCKET": self.address, **more}
        return ["env", *(f"{name}={value}" for name, value in variables.items())]

    async def told(self) -> str:
        async with asyncio.timeout(DEADLINE):
            return (await asyncio.get_running_loop().sock_recv(self._sock, 4096)).decode()

    def nothing_more(self) -> bool:
        try:
            self._sock.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Listener]:
    abstract = f"@emptybox-test-{os.getpid()}-{os.urandom(4).hex()}"
    listener = Listener(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield listener
    listener.close()


async def test_the_manager_hears_once_that_all_is_up_and_how_long_the_end_may_take(manager: Listener) -> None:
    async with keeper(wrapper=manager.environment()) as kept:
        agent = await kept.agent()
        assert manager.nothing_more()
        await agent.client.ready()
        assert await manager.told() == "READY=1"
        agent.kill()
        agent = await kept.agent()
        await agent.client.ready()  # of an agent started again nobody needs to hear
        os.kill(kept.pid, signal.SIGTERM)
        assert await manager.told() == "STOPPING=1"
        await agent.told_signal()
        await agent.client.stopping(30.0)
        assert await manager.told() == "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000"
        agent.exit(0)
        assert await kept.ended() == 0


async def test_neither_agent_nor_child_finds_the_managers_address(manager: Listener) -> None:
    wrapper = manager.environment(WATCHDOG_USEC="60000000")
    async with keeper(wrapper=wrapper) as kept:
        agent = await kept.agent()
        for pid in (agent.pid, (await agent.client.spawn(python("x", SLEEP))).pid):
            found = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in found
            assert b"WATCHDOG" not in found
        assert await manager.told() == "WATCHDOG=1"


async def alive(manager: Listener, times: int) -> None:
    for _ in range(times):
        assert await manager.told() == "WATCHDOG=1"


async def test_a_watchdog_is_fed_while_the_agent_answers(manager: Listener) -> None:
    async with keeper(wrapper=manager.environment(WATCHDOG_USEC="2000000")) as kept:
        agent = await kept.agent()
        await alive(manager, 5)
        assert not agent.client.lost.is_set()
        assert "killing" not in kept.output


async def test_an_agent_that_hangs_is_started_again_and_its_children_live(manager: Listener) -> None:
    async with keeper(wrapper=manager.environment(WATCHDOG_USEC="1000000")) as kept:
        agent = await kept.agent()
        running = await agent.client.spawn(python("x", SLEEP))
        await said(agent.client, "x", "ready")
        hang(agent.pid)
        assert "the agent has not answered for 1 s: killing it" in kept.output
        successor = await kept.agent()
        assert successor.client.children["x"] == running
        await alive(manager, 3)


def hang(agent: int) -> None:
    """Block this loop, which is the agent's, until the keeper has had enough of it."""
    end = time.monotonic() + DEADLINE
    while Path(f"/proc/{agent}").exists():
        time.sleep(0.01)
        assert time.monotonic() < end


async def test_a_watchdog_for_somebody_else_is_not_ours(manager: Listener) -> None:
    wrapper = manager.environment(WATCHDOG_USEC="400000", WATCHDOG_PID="1")
    async with keeper(wrapper=wrapper) as kept:
        await (await kept.agent()).client.ready()
        assert await manager.told() == "READY=1"


async def test_a_manager_that_has_gone_disturbs_nobody(tmp_path: Path) -> None:
    wrapper = ["env", f"NOTIFY_SOCKET={tmp_path}/gone", "WATCHDOG_USEC=400000"]
    async with keeper(wrapper=wrapper) as kept:
        agent = await kept.agent()
        await agent.client.ready()
        running = await agent.client.spawn(python("x", SLEEP))
        await said(agent.client, "x", "ready")
        assert running.running
        assert "defect" not in kept.output
