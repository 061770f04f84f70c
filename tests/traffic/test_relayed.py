"""The gate that relays: real slots, real children on private ports."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from agent.domain.events import GateChanged
from agent.domain.spec import PortSpec
from agent.traffic.ports import variables
from agent.traffic.relayed import RelayGate
from agent.traffic.state import GateState, Mode, NotNow
from tests.kit.load import load
from tests.traffic.support import (
    DEADLINE,
    REQUEST,
    Stage,
    answered,
    ask,
    child_on,
    connect,
    eventually,
    free_port,
    read_all,
    stage,
    terminate,
    who,
)


@contextmanager
def child_at(gate: RelayGate, side: int, name: str, backlog: int = 128) -> Iterator[subprocess.Popen[str]]:
    """A server that listens on the private port of a side, and alone has that socket."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", gate.child_ports(side)["http"]))
        listener.listen(backlog)
        with child_on(listener, name) as process:
            listener.close()
            yield process


async def freeze(process: subprocess.Popen[str]) -> None:
    """SIGSTOP, and wait until it has stopped."""
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    await eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")


@asynccontextmanager
async def opened(hold: float = 60.0) -> AsyncIterator[tuple[Stage, RelayGate]]:
    async with stage() as on:
        gate = on.relay_gate(hold=hold)
        await gate.open_ports()
        yield on, gate


async def test_the_page_first_then_the_child_then_the_other_child_then_the_page_again() -> None:
    async with opened() as (on, gate):
        assert await who(on.port) == "503"
        await gate.prepare(0)
        with child_at(gate, 0, "v1"):
            await gate.serve(0)
            assert await who(on.port) == "v1"
            await gate.prepare(1)
            assert gate.child_ports(0) != gate.child_ports(1)
            with child_at(gate, 1, "v2"):
                assert await who(on.port) == "v1"
                await gate.serve(1)
                assert await who(on.port) == "v2"
                await gate.maintain()
                assert await who(on.port) == "503"
        assert [f.state for f in on.facts if isinstance(f, GateChanged)] == [
            "maintenance", "open", "open", "maintenance",
        ]  # fmt: skip


async def test_a_probe_goes_straight_to_the_child_and_needs_no_steering() -> None:
    async with opened() as (on, gate):
        with pytest.raises(NotNow):
            gate.probe_target(0)
        await gate.prepare(0)
        host, port, source = gate.probe_target(0, "http")
        assert (host, source) == ("127.0.0.1", None)
        with child_at(gate, 0, "v1"):
            await gate.steer_probe(0)
            assert await who(port) == "v1"
            assert await who(on.port) == "503"
        with pytest.raises(KeyError):
            gate.probe_target(0, "nothing")


async def test_held_clients_wait_and_are_answered_by_the_child_that_comes() -> None:
    async with opened() as (on, gate):
        await gate.hold(0)
        clients = [asyncio.ensure_future(who(on.port)) for _ in range(20)]
        await eventually(lambda: answered(on, "held") == 20)
        await gate.prepare(0)
        with child_at(gate, 0, "v1"):
            assert not any(client.done() for client in clients)
            await gate.serve(0)
            assert set(await asyncio.gather(*clients)) == {"v1"}
    assert answered(on, "held") == 20


async def test_at_the_end_of_a_hold_clients_get_the_page() -> None:
    async with opened(hold=0.1) as (on, gate):
        await gate.hold(1)
        assert await who(on.port) == "503"
        assert gate.state == GateState(Mode.MAINTENANCE)


async def test_swaps_under_load_lose_nothing() -> None:
    async with opened() as (on, gate):
        with ExitStack() as stack:
            await gate.prepare(0)
            old = stack.enter_context(child_at(gate, 0, "v0"))
            await gate.serve(0)
            async with load("127.0.0.1", on.port) as running:
                await running.answered("v0", 20)
                for number in range(1, 11):
                    side = number % 2
                    await gate.prepare(side)
                    new = stack.enter_context(child_at(gate, side, f"v{number}"))
                    await gate.serve(side)
                    assert await gate.drained(1 - side, DEADLINE)
                    assert await terminate(old) == 0
                    await gate.take_over(1 - side)
                    await running.answered(f"v{number}", 20)
                    old = new
                await running.stop()
        assert running.failures == {}
        assert set(running.counts) == {f"v{number}" for number in range(11)}


async def test_draining_waits_for_those_in_the_old_childs_own_queue() -> None:
    async with opened() as (on, gate):
        await gate.prepare(0)
        with child_at(gate, 0, "v1") as old:
            await gate.serve(0)
            await freeze(old)
            waits = asyncio.ensure_future(who(on.port))
            await eventually(lambda: gate._relayed[0] == 1)
            with pytest.raises(NotNow):
                await gate.drained(0, 0.1)
            await gate.prepare(1)
            with child_at(gate, 1, "v2"):
                await gate.serve(1)
                assert await who(on.port) == "v2"
                assert not await gate.drained(0, 0.1)
                assert not await gate.connections_gone(0, old.pid, 0.1)
                old.send_signal(signal.SIGCONT)
                assert await gate.drained(0, DEADLINE)
                assert await gate.connections_gone(0, old.pid, DEADLINE)
                assert await waits == "v1"


async def test_clients_of_a_killed_child_wait_for_the_next_one() -> None:
    async with opened() as (on, gate):
        await gate.prepare(0)
        with child_at(gate, 0, "v1") as child:
            await gate.serve(0)
            child.kill()
            await asyncio.to_thread(child.wait)
        early = asyncio.ensure_future(who(on.port))  # comes before anyone has told the gate
        await eventually(lambda: gate._tally._counts.get("held"))
        await gate.hold(0)
        late = asyncio.ensure_future(who(on.port))
        before = gate.child_ports(0)
        await gate.prepare(0)
        assert gate.child_ports(0) != before
        with child_at(gate, 0, "v1 again"):
            await gate.serve(0)
            assert {await early, await late} == {"v1"}


async def test_nobody_serves_for_too_long_and_clients_get_the_page() -> None:
    async with opened(hold=0.1) as (on, gate):
        await gate.prepare(0)
        await gate.serve(0)
        assert await who(on.port) == "503"
        assert gate.state == GateState(Mode.OPEN, 0)


async def test_the_next_agent_finds_the_children_again() -> None:
    async with opened() as (on, gate):
        await gate.prepare(1)
        with child_at(gate, 1, "v1"):
            await gate.serve(1)
            ports = gate.child_ports(1)
            await gate.detach()
            waits = asyncio.ensure_future(who(on.port))  # no agent: it waits in a slot
            successor = on.relay_gate()
            await successor.open_ports()
            assert successor.state == GateState(Mode.OPEN, 1)
            assert successor.child_ports(1) == ports
            assert await waits == "v1"


async def test_a_websocket_like_connection_passes_bytes_both_ways_until_it_ends() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    async with opened() as (on, gate):
        await gate.prepare(0)
        server = await asyncio.start_server(echo, "127.0.0.1", gate.child_ports(0)["http"])
        async with server:
            await gate.serve(0)
            with await connect(on.port) as client:
                for word in (b"one", b"two"):
                    await loop.sock_sendall(client, word)
                    assert await loop.sock_recv(client, 100) == word.upper()
                await gate.maintain()  # those who are there stay
                await loop.sock_sendall(client, b"three")
                client.shutdown(socket.SHUT_WR)
                assert await read_all(client) == b"THREE"


async def test_several_ports_have_a_private_one_each() -> None:
    async with stage() as on:
        other = free_port()
        ports = [on.spec, PortSpec(name="metrics-2", port=other, address="127.0.0.1")]
        gate = on.relay_gate(ports=ports)
        await gate.open_ports()
        await gate.prepare(0)
        private = gate.child_ports(0)
        assert len({*private.values(), on.port, other}) == 4
        assert variables(ports, private) == {
            "PORT": str(private["http"]),
            "PORT_HTTP": str(private["http"]),
            "PORT_METRICS_2": str(private["metrics-2"]),
        }
        assert variables(ports, {})["PORT_METRICS_2"] == str(other)
        with child_at(gate, 0, "v1"):
            await gate.serve(0)
            assert await who(on.port) == "v1"
            with await connect(other) as client:  # nobody listens there yet: it is kept, then served
                await asyncio.get_running_loop().sock_sendall(client, REQUEST)
                with socket.create_server(("127.0.0.1", private["metrics-2"])) as late:
                    late.setblocking(False)
                    served, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(late), DEADLINE)
                    served.close()


async def test_a_closed_gate_refuses_and_has_no_child() -> None:
    async with opened() as (on, gate):
        await gate.close()
        assert on.holder.groups == {} and on.holder.notes == {}
        with pytest.raises(NotNow):
            await gate.prepare(0)
        with pytest.raises(ConnectionRefusedError):
            await ask(on.port)


async def test_no_slot_is_handed_to_a_child() -> None:
    async with opened() as (_, gate):
        assert gate.slots(0) == gate.slots(1) == []


async def test_a_request_torn_by_the_childs_death_is_reset_and_not_ended() -> None:
    async with opened() as (on, gate):
        await gate.prepare(0)
        with child_at(gate, 0, "v1") as child:
            await gate.serve(0)
            await freeze(child)  # so that it leaves something unread behind
            with await connect(on.port) as client:
                await asyncio.get_running_loop().sock_sendall(client, REQUEST)
                await eventually(lambda: gate._relayed[0] == 1)
                child.kill()
                with pytest.raises(ConnectionResetError):
                    await read_all(client)
