"""The share of clients that a new version gets, at the gate that steers and at the one that relays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.domain.events import GateChanged
from agent.traffic.gate import SlotGate
from agent.traffic.relayed import RelayGate
from agent.traffic.slots import waiting
from agent.traffic.state import GateState, Mode, NotNow
from agent.traffic.steering import PROBE_SOURCE, SERVING_SOURCE
from tests.kit.load import load
from tests.traffic.support import (
    DEADLINE,
    Stage,
    ask,
    body_of,
    eventually,
    serving,
    stage,
    who,
)
from tests.traffic.test_relayed import child_at

MANY = 2000  # connections: of 10 % of them the standard deviation is 0.67 %


@asynccontextmanager
async def old_and_new() -> AsyncIterator[tuple[Stage, SlotGate]]:
    """Side 0 serves as v1, on side 1 there is v2."""
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.prepare(0)
        await gate.serve(0)
        await gate.prepare(1)
        with serving(on, gate, 0, "v1"), serving(on, gate, 1, "v2"):
            yield on, gate


@asynccontextmanager
async def relayed_old_and_new() -> AsyncIterator[tuple[Stage, RelayGate]]:
    """The same, relayed."""
    async with stage() as on:
        gate = on.relay_gate()
        await gate.open_ports()
        await gate.prepare(0)
        await gate.prepare(1)
        with child_at(gate, 0, "v1"), child_at(gate, 1, "v2"):
            await gate.serve(0)
            yield on, gate


async def drawn(port: int, count: int) -> Counter[str]:
    """Who answered `count` clients, and a few more."""
    async with load("127.0.0.1", port) as running:
        async with asyncio.timeout(DEADLINE):
            while running.counts.total() < count:
                running._changed.clear()
                await running._changed.wait()
        await running.stop()
    assert running.failures == {}
    return running.counts


def share(counts: Counter[str], name: str) -> float:
    return 100 * counts[name] / counts.total()


async def test_a_tenth_of_the_new_connections_reaches_the_new_child_and_the_rest_the_old() -> None:
    async with old_and_new() as (on, gate):
        await gate.canary(1, 10)
        assert gate.state == GateState(Mode.CANARY, 0, 10)
        assert share(await drawn(on.port, MANY), "v2") == pytest.approx(10, abs=4)
        await gate.canary(1, 50)
        assert share(await drawn(on.port, MANY), "v2") == pytest.approx(50, abs=8)
        await gate.serve(1)
        assert set(await drawn(on.port, 50)) == {"v2"}
        assert [(f.state, f.percent) for f in on.facts if isinstance(f, GateChanged)] == [
            ("maintenance", 0), ("open", 0), ("canary", 10), ("canary", 50), ("open", 0),
        ]  # fmt: skip


async def test_a_canary_that_is_given_up_gets_nobody_more_and_loses_nobody() -> None:
    async with old_and_new() as (on, gate):
        await gate.canary(1, 50)
        async with load("127.0.0.1", on.port) as running:
            await running.answered("v2", 20)
            with pytest.raises(NotNow):
                await gate.drained(1, 1)
            with pytest.raises(NotNow):
                await gate.drained(0, 1)
            await gate.serve(0)
            assert await gate.drained(1, DEADLINE)
            await running.answered("v1", running.counts["v1"] + 50)
            await running.stop()
        assert running.failures == {}
        assert set(await drawn(on.port, 50)) == {"v1"}


async def test_probes_of_either_child_reach_it_while_the_others_draw_lots() -> None:
    async with old_and_new() as (on, gate):
        await gate.steer_probe(1)
        await gate.canary(1, 50)
        assert [gate.probe_source(side) for side in (0, 1)] == [SERVING_SOURCE, PROBE_SOURCE]
        assert gate.probe_target(0) == ("127.0.0.1", on.port, SERVING_SOURCE)
        for source, name in ((SERVING_SOURCE, "v1"), (PROBE_SOURCE, "v2")):
            assert {await who(on.port, source) for _ in range(20)} == {name}
        await gate.serve(0)
        assert gate.probe_source(0) is None
        assert await who(on.port, SERVING_SOURCE) == "v1"


async def test_only_beside_a_child_that_serves_can_another_get_a_share() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with pytest.raises(NotNow):
            await gate.canary(1, 10)
        await gate.serve(0)
        with pytest.raises(NotNow, match="side 0"):
            await gate.canary(0, 10)
        for percent in (0, 100):
            with pytest.raises(ValueError, match="share"):
                await gate.canary(1, percent)
        with pytest.raises(ValueError, match="side"):
            await gate.canary(2, 10)
        own = on.own_gate()
        with pytest.raises(NotNow):
            await own.canary(1, 10)


async def test_a_hold_and_the_page_end_a_canary() -> None:
    async with old_and_new() as (on, gate):
        await gate.canary(1, 50)
        await gate.maintain()
        assert {await who(on.port) for _ in range(10)} == {"503"}
        await gate.serve(0)
        await gate.canary(1, 50)
        await gate.hold(0)
        waits = [asyncio.ensure_future(who(on.port)) for _ in range(10)]
        assert set(await asyncio.gather(*waits)) == {"v1"}  # it accepts though nobody said it serves


async def test_the_next_agent_goes_on_with_the_same_share() -> None:
    async with old_and_new() as (on, gate):
        await gate.canary(1, 50)
        await gate.detach()
        assert {await who(on.port) for _ in range(40)} == {"v1", "v2"}
        successor = on.slot_gate()
        await successor.open_ports()
        assert successor.state == GateState(Mode.CANARY, 0, 50)
        assert share(await drawn(on.port, MANY), "v2") == pytest.approx(50, abs=8)


async def test_who_waits_for_a_new_child_that_was_killed_is_answered_by_the_old() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.serve(0)
        await gate.prepare(1)
        with serving(on, gate, 0, "v1"):
            await gate.canary(1, 99)  # there is nobody at side 1
            waits = [asyncio.ensure_future(who(on.port)) for _ in range(30)]
            await eventually(lambda: waiting(on.slot(gate, 1)) > 0)
            await gate.serve(0)
            await gate.take_over(1)
            assert await asyncio.gather(*waits) == ["v1"] * 30


async def test_who_comes_to_a_new_child_that_is_gone_is_taken_straight_to_the_old() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.serve(0)
        await gate.prepare(1)
        with serving(on, gate, 0, "v1"):
            await gate.canary(1, 99)
            await gate.take_over(1)
            told = [body_of(await ask(on.port)).split() for _ in range(20)]
        assert {name for name, _ in told} == {"v1"}
        assert SERVING_SOURCE in {peer for _, peer in told}, "not drawn for the dead one again and again"


async def test_a_relayed_tenth_reaches_the_new_child() -> None:
    async with relayed_old_and_new() as (on, gate):
        await gate.canary(1, 10)
        assert share(await drawn(on.port, MANY), "v2") == pytest.approx(10, abs=4)
        with pytest.raises(NotNow):
            await gate.drained(1, 1)
        await gate.serve(0)
        assert set(await drawn(on.port, 50)) == {"v1"}
        assert await gate.drained(1, DEADLINE)


async def test_a_relayed_client_is_served_by_the_other_child_when_its_own_refuses() -> None:
    async with stage() as on:
        gate = on.relay_gate()
        await gate.open_ports()
        await gate.prepare(0)
        await gate.prepare(1)
        with child_at(gate, 0, "v1"):
            await gate.serve(0)
            with child_at(gate, 1, "v2") as new:
                await gate.canary(1, 99)
                assert "v2" in {await who(on.port) for _ in range(20)}
                new.kill()
                await asyncio.to_thread(new.wait)
            assert {await who(on.port) for _ in range(20)} == {"v1"}
