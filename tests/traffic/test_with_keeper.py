"""The gate with the real keeper: children start with their slots as descriptor 3, and agents die."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.events import Bus
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.keeper.client import KeeperClient
from agent.keeper.protocol import ChildRequest
from agent.traffic.gate import SlotGate
from agent.traffic.page import Progress
from agent.traffic.state import GateState, Mode
from tests.kit.keepers import Agent, KeeperProcess, keeper, said
from tests.kit.load import load
from tests.traffic.support import DEADLINE, FD_SERVER, free_port, who


def gate_on(client: KeeperClient, port: int) -> SlotGate:
    return SlotGate(
        "web", [PortSpec(name="http", port=port, address="127.0.0.1")], client, Bus(),
        maintenance=MaintenanceSpec(hold=60.0), progress=Progress,
    )  # fmt: skip


async def start(client: KeeperClient, gate: SlotGate, side: int, name: str) -> None:
    await gate.prepare(side)
    argv = [sys.executable, "-S", "-E", "-P", "-u", str(FD_SERVER), name]
    await client.spawn(ChildRequest(name, argv, {"PATH": "/"}, "/", slots=gate.slots(side)))
    await said(client, name, "ready")


async def swap(client: KeeperClient, gate: SlotGate, number: int) -> None:
    """From v<number - 1> to v<number>, in the order that loses nothing."""
    side, old = number % 2, f"v{number - 1}"
    await start(client, gate, side, f"v{number}")
    await gate.serve(side)
    assert await gate.drained(1 - side, DEADLINE)
    await client.signal(old, signal.SIGTERM)
    assert (await client.wait(old)).code == 0
    await gate.take_over(1 - side)
    await client.forget(old)


async def test_swaps_by_the_keeper_lose_nothing_over_the_deaths_of_agents() -> None:
    port = free_port()
    async with keeper() as kept:
        agent: Agent = await kept.agent()
        gate = gate_on(agent.client, port)
        await gate.open_ports()
        await start(agent.client, gate, 0, "v0")
        await gate.serve(0)
        async with load("127.0.0.1", port) as running:
            await running.answered("v0", 50)
            for number in range(1, 7):
                if number % 3 == 0:
                    agent.kill()
                    await gate.detach()
                    await agent.client.aclose()
                    agent = await kept.agent()
                    gate = gate_on(agent.client, port)
                    await gate.open_ports()
                    assert gate.state == GateState(Mode.OPEN, (number - 1) % 2)
                await swap(agent.client, gate, number)
                await running.answered(f"v{number}", 50)
            await running.stop()
        assert running.failures == {}
        await gate.close()


async def test_an_agent_killed_while_it_shows_the_page_keeps_clients_waiting_and_not_refused(
    kept: KeeperProcess,
) -> None:
    port = free_port()
    agent = await kept.agent()
    gate = gate_on(agent.client, port)
    await gate.open_ports()
    assert await who(port) == "503"
    agent.kill()
    await gate.detach()
    await agent.client.aclose()
    waits = asyncio.ensure_future(who(port))
    agent = await kept.agent()
    gate = gate_on(agent.client, port)
    await gate.open_ports()
    assert await waits == "503"
    await gate.close()


async def test_a_port_the_keeper_cannot_have_is_an_operators_case(agent: Agent) -> None:
    other = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with other:
        gate = gate_on(agent.client, other.sockets[0].getsockname()[1])
        with pytest.raises(OperatorNeeded, match="taken by") as caught:
            await gate.open_ports()
        assert caught.value.reason == "PortTaken"
        assert agent.client.groups == {} and agent.client.notes == {}
        await gate.detach()


async def test_a_closed_gate_leaves_nothing_with_the_keeper(agent: Agent) -> None:
    gate = gate_on(agent.client, free_port())
    await gate.open_ports()
    assert agent.client.groups and agent.client.notes
    await gate.close()
    assert agent.client.groups == {} and agent.client.notes == {}
