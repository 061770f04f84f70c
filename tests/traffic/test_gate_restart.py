"""A successor with the same keeper, and any sequence of verbs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.traffic.slots import accept_waiting, waiting
from agent.traffic.state import SIDES, GateState, Mode, Verb, advance
from tests.traffic.support import (
    connect,
    eventually,
    serving,
    stage,
    who,
)

MAINTENANCE = GateState(Mode.MAINTENANCE)


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
