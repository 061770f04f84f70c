"""A successor with the same keeper."""

from __future__ import annotations

import asyncio

import pytest

from agent.traffic.slots import waiting
from agent.traffic.state import GateState, Mode
from tests.traffic.support import (
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
