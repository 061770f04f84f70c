"""Each program is swapped by the real keeper under load; nothing of it is lost, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from agent.keeper.client import KeeperClient
from agent.traffic.gate import SlotGate
from tests.kit import sandbox
from tests.kit.keepers import Agent, keeper, offspring, request
from tests.kit.load import load
from tests.kit.ports import free_port
from tests.traffic.adopt.programs import PROGRAMS, Program
from tests.traffic.support import DEADLINE, ask, body_of, eventually, status_of
from tests.traffic.test_with_keeper import gate_on

CLOSE = b"GET / HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n"
PER_VERSION = 30  # answers of a version before the next one comes


class Stage:
    """One port, and the versions of a program that take turns there."""

    def __init__(self, client: KeeperClient, gate: SlotGate, program: Program, root: Path) -> None:
        self.client = client
        self.gate = gate
        self.program = program
        self.root = root
        self.port = gate.ports[0].port

    async def start(self, number: int) -> None:
        """Start version `number` beside the last one, and ask it on the public port."""
        name, side = f"v{number}", number % 2
        root = self.root / name
        root.mkdir()
        root.chmod(0o777)
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(root), "PORT": str(self.port), "EMPTYBOX_VERSION": name,
        }  # fmt: skip
        await self.gate.prepare(side)
        wanted = request(
            name, self.program.command(root, name, self.port), environment=environment, directory=str(root),
            slots=self.gate.slots(side), adopt=True,
        )  # fmt: skip
        await self.client.spawn(wanted)
        async with asyncio.timeout(DEADLINE):
            record = await self.client.taken(name, ["http"])
        assert record.running, await self.client.tail(name)
        await self.gate.steer_probe(side)
        answer = await ask(self.port, CLOSE, self.gate.probe_source(side))
        assert (status_of(answer), body_of(answer).strip()) == (200, name)

    async def stop(self, number: int) -> None:
        """Stop version `number` in the order that loses nothing."""
        name, side = f"v{number}", number % 2
        if self.gate.state.side != side:
            assert await self.gate.drained(side, DEADLINE)
        if not self.program.graceful:
            assert await self.gate.connections_gone(side, self.client.children[name].pid, DEADLINE)
        assert await self.client.signal(name, self.program.stop)
        async with asyncio.timeout(DEADLINE):
            await self.client.wait(name)
        await self.gate.take_over(side)
        while await self.client.signal(name, signal.SIGKILL):
            await asyncio.sleep(0.005)
        await self.client.forget(name)


async def swapped(agent: Agent, program: Program, root: Path, swaps: int) -> None:
    """Swap it under load, lose nothing, and leave nothing."""
    port = free_port()
    gate = gate_on(agent.client, port)
    await gate.open_ports()
    on = Stage(agent.client, gate, program, root)
    await on.start(0)
    await gate.serve(0)
    async with load("127.0.0.1", port) as running:
        await running.answered("v0", PER_VERSION)
        for number in range(1, swaps + 1):
            await on.start(number)
            await gate.serve(number % 2)
            await on.stop(number - 1)
            await running.answered(f"v{number}", PER_VERSION)
        await running.stop()
    assert running.failures == {}
    assert set(running.counts) == {f"v{number}" for number in range(swaps + 1)}
    await gate.maintain()
    await on.stop(swaps)
    keeper_pid = agent.client.keeper_pid
    await eventually(lambda: offspring(keeper_pid) == [str(agent.pid)], "only the agent is left")
    await gate.close()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_is_swapped_and_no_new_connection_is_lost(
    agent: Agent, name: str, tmp_path: Path
) -> None:
    await swapped(agent, PROGRAMS[name], tmp_path, swaps=2)


FEW = ["static", "busybox-background", "node", "uvicorn"]
NARROW = [
    *((name, "docker nobody") for name in PROGRAMS),
    *((n, w) for n in FEW for w in ("nobody", "docker root")),
]


@pytest.mark.root
@pytest.mark.parametrize(("name", "where"), NARROW)
async def test_a_program_is_swapped_in_a_narrow_place(name: str, where: str) -> None:
    sandbox.as_root()
    wrapper = sandbox.unprivileged() if where == "nobody" else sandbox.in_docker(root=where == "docker root")
    with tempfile.TemporaryDirectory(prefix="adopt-") as directory:
        os.chmod(directory, 0o777)
        async with keeper(wrapper=wrapper) as kept:
            await swapped(await kept.agent(), PROGRAMS[name], Path(directory), swaps=1)
