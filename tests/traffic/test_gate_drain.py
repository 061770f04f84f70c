"""What is still on its way to an old child, and what children do to their slots."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from agent.traffic.slots import waiting
from agent.traffic.state import SIDES, GateState, Mode, NotNow
from tests.traffic.support import (
    REQUEST,
    body_of,
    child_on,
    connect,
    eventually,
    read_all,
    serving,
    stage,
    terminate,
    who,
)

MAINTENANCE = GateState(Mode.MAINTENANCE)


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
