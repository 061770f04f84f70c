"""Ports at IPv6 addresses: dual-stack and IPv6 only, with the real keeper, probe and steering."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from agent.domain.events import Bus
from agent.domain.probe_mark import traffic_class
from agent.domain.spec import HealthSpec, MaintenanceSpec, PortSpec, ProbeKind
from agent.process.probe import ProbeTarget, probe
from agent.traffic.gate import SlotGate
from agent.traffic.page import Progress
from agent.traffic.steering import PROBE_SOURCE, SERVING_SOURCE
from tests.kit.keepers import Agent
from tests.traffic.support import DEADLINE, REQUEST, body_of, child_on, free_port, read_all, status_of

HOSTS = {"::": ("::1", "127.0.0.1"), "::1": ("::1",)}
PROBE = HealthSpec(kind=ProbeKind.HTTP, timeout=DEADLINE)


def gate_at(agent: Agent, address: str) -> SlotGate:
    port = PortSpec(name="http", port=free_port(), address=address)
    maintenance = MaintenanceSpec(hold=60.0)
    return SlotGate("web", [port], agent.client, Bus(), maintenance=maintenance, progress=Progress)


async def ask(gate: SlotGate, host: str, mark: str | None = None) -> str:
    """Who answers at the gate's port, as a client at `host` sees it; `mark` makes it look like a probe."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.setblocking(False)
        if mark is not None and family == socket.AF_INET6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class(mark))
        elif mark is not None:
            client.bind((mark, 0))
        async with asyncio.timeout(DEADLINE):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (host, gate.ports[0].port))
            await loop.sock_sendall(client, REQUEST)
            answer = await read_all(client)
    return body_of(answer).split()[0] if status_of(answer) == 200 else str(status_of(answer))


def probed(gate: SlotGate, side: int) -> ProbeTarget:
    host, port, _ = gate.probe_target(side)
    return ProbeTarget(host=host, port=port, source=lambda: gate.probe_source(side))


@pytest.mark.parametrize("address", HOSTS)
async def test_page_flip_and_probe_before_the_flip(agent: Agent, address: str) -> None:
    gate = gate_at(agent, address)
    await gate.open_ports()
    with ExitStack() as stack:
        for host in HOSTS[address]:
            assert await ask(gate, host) == "503"
        for side in (0, 1):
            await gate.prepare(side)
            _, index, _ = gate.slots(side)[0]
            stack.enter_context(child_on(next(iter(gate._groups)).sockets[index], f"v{side}"))
        await gate.serve(0)
        await gate.steer_probe(1)
        for host in HOSTS[address]:
            assert await ask(gate, host) == "v0"
        probing = gate.probe_target(1)[0]
        assert await ask(gate, probing, gate.probe_source(1)) == "v1"
        assert (await probe(PROBE, probed(gate, 1))).ok
        await gate.serve(1)
        for host in HOSTS[address]:
            assert await ask(gate, host) == "v1"
        assert await gate.drained(0, DEADLINE)
        await gate.canary(0, 1)
        assert await ask(gate, probing, gate.probe_source(1)) == "v1"
        assert gate.probe_source(1) == SERVING_SOURCE
    await gate.close()


async def test_a_probe_of_a_new_child_that_hangs_reaches_nobody_else(agent: Agent) -> None:
    gate = gate_at(agent, "::1")
    await gate.open_ports()
    await gate.prepare(0)
    await gate.steer_probe(0)  # nobody accepts there
    found = await probe(HealthSpec(kind=ProbeKind.HTTP, timeout=0.1), probed(gate, 0))
    assert not found.ok and "no complete answer" in found.detail
    assert await ask(gate, "::1") == "503"
    await gate.close()


async def test_the_mark_counts_over_the_family_that_is_probed_only(agent: Agent) -> None:
    gate = gate_at(agent, "::")
    await gate.open_ports()
    await gate.prepare(0)
    await gate.steer_probe(0)
    assert await ask(gate, "::1", PROBE_SOURCE) == "503"  # the class means nothing to a dual-stack group
    await gate.close()


def test_the_marks_are_classes_of_their_own_without_congestion_bits() -> None:
    classes = {traffic_class(source) for source in (PROBE_SOURCE, SERVING_SOURCE)}
    assert len(classes) == 2
    assert all(value and not value & 3 for value in classes)
