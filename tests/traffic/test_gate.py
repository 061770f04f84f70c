"""The states of a SlotGate, seen from outside: who answers a client, with which words."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import ExitStack

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.events import ConditionChanged, GateChanged
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.traffic.page import Progress
from agent.traffic.slots import waiting
from agent.traffic.state import CLOSED, GateState, Mode, NotNow
from agent.traffic.steering import PROBE_SOURCE
from tests.traffic.support import (
    Holder,
    Stage,
    answered,
    ask,
    body_of,
    connect,
    eventually,
    free_port,
    serving,
    stage,
    status_of,
    who,
)

MAINTENANCE = GateState(Mode.MAINTENANCE)


def states(on: Stage) -> list[str]:
    return [fact.state for fact in on.facts if isinstance(fact, GateChanged)]


async def test_a_new_gate_is_in_maintenance_and_says_so_in_the_form_that_is_asked_for() -> None:
    async with stage() as on:
        on.progress = Progress("Unpacking", "34 of 80 MiB", 42.0)
        gate = on.slot_gate(retry_after=7)
        assert gate.state == CLOSED
        await gate.open_ports()
        assert gate.state == MAINTENANCE
        html = await ask(on.port, b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n")
        assert status_of(html) == 503
        assert "Unpacking" in body_of(html) and "42 %" in body_of(html)
        answer = await ask(on.port, b"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n")
        assert json.loads(body_of(answer))["progress"]["phase"] == "Unpacking"
        assert b"Retry-After: 7\r\n" in answer
        await gate.detach()
        assert answered(on, "page") == 2


async def test_serving_answers_with_the_child_and_maintaining_with_the_page_again() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.prepare(0)
        with serving(on, gate, 0, "v1"):
            assert await who(on.port) == "503"
            await gate.serve(0)
            assert await who(on.port) == "v1"
            await gate.maintain()
            assert await who(on.port) == "503"
            await gate.serve(0)
            assert await who(on.port) == "v1"
        assert states(on) == ["maintenance", "open", "maintenance", "open"]


async def test_fifty_held_clients_are_all_answered_by_the_child_that_comes_later() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, 0, "v1"):
            await gate.serve(0)
            assert await who(on.port) == "v1"
            await gate.hold(1)
            answers = [asyncio.ensure_future(who(on.port)) for _ in range(50)]
            await eventually(lambda: waiting(on.slot(gate, 1)) == 50)
        await gate.prepare(1)
        with serving(on, gate, 1, "v2"):
            assert await asyncio.gather(*answers) == ["v2"] * 50
            await gate.serve(1)
            assert await who(on.port) == "v2"
        await gate.detach()
        assert answered(on, "held") == 50
        assert answered(on, "page") == 0


async def test_held_clients_keep_their_own_addresses() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.hold(0)
        waits = asyncio.ensure_future(ask(on.port, source="127.44.5.6"))
        await eventually(lambda: waiting(on.slot(gate, 0)) == 1)
        await gate.prepare(0)
        with serving(on, gate, 0, "v1"):
            assert body_of(await waits) == "v1 127.44.5.6\n"


@pytest.mark.parametrize("lent", [False, True])
async def test_when_a_hold_ends_everyone_who_waits_gets_the_page_and_so_does_everyone_after(
    lent: bool,
) -> None:
    async with stage() as on:
        gate = on.slot_gate(hold=0.15)
        await gate.open_ports()
        await gate.hold(0)
        if lent:
            await gate.prepare(0)
        answers = await asyncio.gather(*(who(on.port) for _ in range(20)))
        assert answers == ["503"] * 20
        assert gate.state == MAINTENANCE
        assert await who(on.port) == "503"
        with serving(on, gate, 0, "v1"):
            await gate.serve(0)
            assert await who(on.port) == "v1"
        assert states(on) == ["maintenance", "holding", "maintenance", "open"]


async def test_a_hold_that_is_asked_for_again_does_not_begin_anew() -> None:
    async with stage() as on:
        gate = on.slot_gate(hold=0.1)
        await gate.open_ports()
        await gate.hold(0)
        gate.configure(MaintenanceSpec(hold=60.0))
        await gate.hold(0)
        await eventually(lambda: gate.state == MAINTENANCE)


async def test_serving_ends_a_hold_for_good() -> None:
    async with stage() as on:
        gate = on.slot_gate(hold=0.05)
        await gate.open_ports()
        await gate.hold(0)
        await gate.serve(0)
        await asyncio.sleep(0.1)
        assert gate.state == GateState(Mode.OPEN, 0)


async def test_who_was_held_for_a_child_that_is_given_up_is_answered_by_the_old_one() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, 0, "v1"):
            await gate.serve(0)
            await gate.hold(1)
            await gate.prepare(1)
            answers = [asyncio.ensure_future(who(on.port)) for _ in range(10)]
            await eventually(lambda: waiting(on.slot(gate, 1)) == 10)
            await gate.serve(0)
            assert await asyncio.gather(*answers) == ["v1"] * 10


async def test_probes_reach_the_new_child_on_the_public_port_while_all_others_reach_the_old() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, 0, "v1"), serving(on, gate, 1, "v2"):
            await gate.serve(0)
            assert gate.probe_target(1) == ("127.0.0.1", on.port, PROBE_SOURCE)
            assert gate.probe_target(0, "http") == ("127.0.0.1", on.port, None)
            await gate.steer_probe(1)
            assert [await who(on.port, PROBE_SOURCE), await who(on.port)] == ["v2", "v1"]
            await gate.steer_probe(None)
            assert await who(on.port, PROBE_SOURCE) == "v1"
            await gate.steer_probe(1)
            await gate.serve(1)
            assert [await who(on.port, PROBE_SOURCE), await who(on.port)] == ["v2", "v2"]


@pytest.mark.parametrize("told", [True, False])
async def test_probes_still_reach_the_new_child_when_the_hold_has_ended_and_everyone_else_gets_the_page(
    told: bool,
) -> None:
    async with stage() as on:
        gate = on.slot_gate(hold=0.05)
        await gate.open_ports()
        await gate.hold(1)
        await gate.prepare(1)
        if told:
            await gate.steer_probe(1)
        await eventually(lambda: gate.state == MAINTENANCE)
        with serving(on, gate, 1, "v2"):
            assert [await who(on.port, PROBE_SOURCE), await who(on.port)] == ["v2", "503"]


async def test_every_named_port_moves_and_each_has_slots_of_its_own() -> None:
    async with stage() as on:
        ports = [on.spec, PortSpec(name="metrics", port=free_port(), address="127.0.0.2")]
        gate = on.slot_gate(ports=ports)
        await gate.open_ports()
        keys = [key for key, _, _ in gate.slots(1)]
        assert [(index, name) for _, index, name in gate.slots(1)] == [(2, "http"), (2, "metrics")]
        assert gate.probe_target(1, "metrics") == ("127.0.0.2", ports[1].port, PROBE_SOURCE)
        await gate.serve(1)
        with ExitStack() as stack:
            for port in ports:
                client = socket.create_connection((port.address, port.port))
                stack.enter_context(client)
            assert [waiting(on.holder.groups[key][2]) for key in keys] == [1, 1]
        with pytest.raises(KeyError):
            gate.probe_target(1, "nosuch")


async def test_a_port_taken_by_a_stranger_is_an_operators_case_and_leaves_nothing_open() -> None:
    async with stage() as on:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            taken = PortSpec(name="taken", port=stranger.getsockname()[1], address="127.0.0.1")
            gate = on.slot_gate(ports=[on.spec, taken])
            with pytest.raises(OperatorNeeded, match=f"pid {os.getpid()}") as caught:
                await gate.open_ports()
            assert caught.value.reason == "PortTaken"
            assert (gate.state, on.holder.groups, on.holder.notes) == (CLOSED, {}, {})
        await gate.open_ports()
        assert await who(on.port) == "503"


async def test_a_closed_gate_leaves_neither_slot_nor_note_and_can_be_opened_again() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        with pytest.raises(NotNow):
            await gate.serve(0)
        with pytest.raises(NotNow):
            await gate.prepare(0)
        await gate.open_ports()
        await gate.close()
        assert (gate.state, on.holder.groups, on.holder.notes) == (CLOSED, {}, {})
        with pytest.raises(ConnectionRefusedError):
            await connect(on.port)
        await gate.close()
        again = on.slot_gate()
        await again.open_ports()
        assert await who(on.port) == "503"


@pytest.mark.parametrize("side", [-1, 2])
async def test_there_are_two_sides(side: int) -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        for call in (
            gate.hold(side),
            gate.serve(side),
            gate.prepare(side),
            gate.steer_probe(side),
            gate.take_over(side),
        ):
            with pytest.raises(ValueError, match="side"):
                await call
        assert gate.state == MAINTENANCE


class Cramped(Holder):
    """Opens slots in which 100 clients can wait, as a host with a low net.core.somaxconn does."""

    async def open(
        self, key: str, address: str, port: int, count: int, backlog: int = 4096
    ) -> list[socket.socket]:
        sockets = await super().open(key, address, port, count, backlog)
        for listener in sockets:
            listener.listen(100)
        return sockets


async def test_a_host_that_lets_few_clients_wait_is_told_of_once() -> None:
    async with stage() as on:
        await on.slot_gate().open_ports()
        assert not [fact for fact in on.facts if isinstance(fact, ConditionChanged)]
    async with stage() as on:
        on.holder = Cramped()
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.prepare(0)
        await gate.hold(0)
        (told,) = [fact.condition for fact in on.facts if isinstance(fact, ConditionChanged)]
        assert (told.type, told.reason) == ("BacklogLimited", "SomaxconnTooLow")
        assert "only 100 clients" in told.message
