"""The states of a SlotGate, seen from outside: who answers a client, with which words."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.domain.errors import OperatorNeeded
from agent.domain.events import GateChanged, RequestsAnswered
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.traffic.gate import SlotGate
from agent.traffic.page import Progress
from agent.traffic.slots import accept_waiting, waiting
from agent.traffic.state import CLOSED, SIDES, GateState, Mode, NotNow, Verb, advance
from agent.traffic.steering import PROBE_SOURCE
from tests.traffic.support import (
    REQUEST,
    Stage,
    ask,
    body_of,
    child_on,
    connect,
    eventually,
    free_port,
    read_all,
    stage,
    status_of,
    terminate,
    who,
)

MAINTENANCE = GateState(Mode.MAINTENANCE)


@contextmanager
def serving(on: Stage, gate: SlotGate, side: int, name: str) -> Iterator[None]:
    """A child on a side."""
    with child_on(on.slot(gate, side), name):
        yield


def answered(on: Stage, how: str) -> int:
    return sum(f.count for f in on.facts if isinstance(f, RequestsAnswered) and f.how == how)


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


async def test_a_queue_of_the_old_side_is_waited_for_until_the_deadline_and_then_taken_over() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v1") as old, serving(on, gate, 1, "v2"):
            await gate.serve(0)
            await terminate(old)  # it died by itself: nobody accepts at side 0
            answers = [asyncio.ensure_future(who(on.port)) for _ in range(10)]
            await eventually(lambda: waiting(on.slot(gate, 0)) == 10)
            with pytest.raises(NotNow):
                await gate.drained(0, 1.0)
            await gate.serve(1)
            assert not await gate.drained(0, 0.05)
            await gate.take_over(0)
            assert await asyncio.gather(*answers) == ["v2"] * 10
            assert await gate.drained(0, 20.0)


async def test_a_handshake_that_ends_after_the_flip_and_the_old_childs_exit_reaches_the_new_child() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v1") as old, serving(on, gate, 1, "v2"):
            await gate.serve(0)
            # With TCP_DEFER_ACCEPT a handshake stays in SYN_RECV until the client's first byte.
            on.slot(gate, 0).setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
            with await connect(on.port) as early:
                await gate.serve(1)
                assert not await gate.drained(0, 0.1)
                await terminate(old)
                await gate.take_over(0)
                await asyncio.get_running_loop().sock_sendall(early, REQUEST)
                assert body_of(await read_all(early)).startswith("v2 ")
            assert await gate.drained(0, 20.0)


async def test_who_waits_at_a_dead_child_gets_the_page_in_maintenance() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.serve(0)  # nobody is there
        answers = [asyncio.ensure_future(who(on.port)) for _ in range(5)]
        await eventually(lambda: waiting(on.slot(gate, 0)) == 5)
        await gate.maintain()
        await gate.take_over(0)
        assert await asyncio.gather(*answers) == ["503"] * 5


async def test_a_child_finds_its_slot_blocking_with_a_full_backlog_whatever_the_last_one_did_to_it() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        slot = on.slot(gate, 1)
        slot.setblocking(False)
        slot.listen(0)
        await gate.prepare(1)
        assert os.get_blocking(slot.fileno())
        await gate.hold(1)
        clients = [await connect(on.port) for _ in range(20)]
        assert waiting(slot) == 20
        for client in clients:
            client.close()


async def test_a_side_that_has_a_child_already_is_left_alone_by_prepare() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.prepare(0)
        on.slot(gate, 0).setblocking(False)  # as many servers do with what they are given
        await gate.serve(0)
        await gate.detach()
        successor = on.slot_gate()
        await successor.open_ports()
        await successor.prepare(0)
        assert not os.get_blocking(on.slot(gate, 0).fileno())


@pytest.mark.parametrize("dead", SIDES)
async def test_a_child_that_shuts_its_socket_down_loses_no_connection_of_the_other_side(dead: int) -> None:
    alive = 1 - dead
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, alive, "new"):
            await gate.serve(dead)
            await gate.serve(alive)
            on.slot(gate, dead).shutdown(socket.SHUT_RDWR)
            assert {await who(on.port) for _ in range(30)} == {"new"}  # before anyone knows
            await gate.take_over(dead)
            assert {await who(on.port) for _ in range(10)} == {"new"}
            await gate.detach()
            successor = on.slot_gate()
            await successor.open_ports()
            assert {await who(on.port) for _ in range(10)} == {"new"}
            await successor.maintain()
            assert await who(on.port) == "503"
            with serving(on, successor, dead, "newer"):
                await successor.serve(dead)
                assert {await who(on.port) for _ in range(10)} == {"newer"}


@pytest.mark.parametrize("verb", ["maintain", "hold", "serve"])
async def test_a_successor_with_the_same_keeper_changes_nothing_for_traffic(verb: str) -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, 0, "v1"):
            await gate.serve(0)
            await (gate.maintain() if verb == "maintain" else getattr(gate, verb)(1))
            state, note = gate.state, dict(on.holder.notes)
            await gate.detach()  # from here on nobody is there
            waits = asyncio.ensure_future(who(on.port))
            if verb != "maintain":
                await eventually(lambda: waiting(on.slot(gate, 1)) == 1)
            successor = on.slot_gate()
            await successor.open_ports()
            assert successor.state == state
            assert on.holder.notes == note
            with serving(on, successor, 1, "v2"):
                assert await waits == ("503" if verb == "maintain" else "v2")


async def test_a_successor_ends_a_hold_when_its_predecessor_would_have() -> None:
    async with stage() as on:
        gate = on.slot_gate(hold=0.2)
        await gate.open_ports()
        await gate.hold(1)
        waits = asyncio.ensure_future(who(on.port))
        await eventually(lambda: waiting(on.slot(gate, 1)) == 1)
        await gate.detach()
        successor = on.slot_gate(hold=60.0)
        await successor.open_ports()
        assert successor.state == GateState(Mode.HOLDING, 1)
        assert await waits == "503"


async def test_a_flip_that_was_noted_but_not_done_is_completed_by_the_successor() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with serving(on, gate, 0, "v1"), serving(on, gate, 1, "v2"):
            await gate.serve(1)
            noted = dict(on.holder.notes)
            await gate.serve(0)
            await gate.detach()
            on.holder.notes.update(noted)
            successor = on.slot_gate()
            await successor.open_ports()
            assert await who(on.port) == "v2"


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


def accepted_from(slot: socket.socket) -> list[tuple[str, int]]:
    """Accept and close everything that waits; the clients' addresses."""
    peers = []
    while (connection := accept_waiting(slot)) is not None:
        with connection, suppress(OSError):  # a departed client has no address any more
            peers.append(connection.getpeername())
    return peers


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["hold", "serve", "prepare", "take_over", "steer_probe"]), st.sampled_from(SIDES)
    ),
    st.tuples(st.sampled_from(["maintain", "restart", "shutdown"]), st.sampled_from(SIDES)),
)


@given(st.lists(STEPS, max_size=10))
@settings(max_examples=40, deadline=None)
def test_after_any_sequence_a_new_connection_comes_where_the_state_says(steps: list[tuple[str, int]]) -> None:
    async def check() -> None:
        async with stage() as on:
            gate, state = on.slot_gate(), MAINTENANCE
            await gate.open_ports()
            for verb, side in steps:
                if verb == "restart":
                    await gate.detach()
                    gate = on.slot_gate()
                    await gate.open_ports()
                elif verb == "shutdown":
                    on.slot(gate, side).shutdown(socket.SHUT_RDWR)
                    await gate.take_over(1 - side)  # any verb mends
                elif verb == "maintain":
                    await gate.maintain()
                    state = advance(state, Verb.MAINTAIN)
                else:
                    await getattr(gate, verb)(side)
                    if verb in ("hold", "serve"):
                        state = advance(state, Verb(verb), side)
                assert gate.state == state
                if state.side is None:
                    assert await who(on.port) == "503"
                else:
                    with await connect(on.port) as client:
                        assert client.getsockname() in accepted_from(on.slot(gate, state.side))

    asyncio.run(check())
