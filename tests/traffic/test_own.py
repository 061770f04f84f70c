"""An OwnGate takes turns with programs that bind the port by themselves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.traffic.page import Progress
from agent.traffic.state import CLOSED, GateState, Mode, NotNow
from tests.traffic.support import (
    DEADLINE,
    REQUEST,
    answered,
    ask,
    body_of,
    connect,
    eventually,
    read_all,
    stage,
    status_of,
    terminate,
)

MAINTENANCE = GateState(Mode.MAINTENANCE)


@contextmanager
def http_server(port: int, root: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """An unmodified program: `python -m http.server`, serving a file `name`."""
    root.mkdir(exist_ok=True)
    (root / "index.html").write_text(name)
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(root),
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def listening(process: subprocess.Popen[str]) -> None:
    """The program says when it listens."""
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).startswith("Serving HTTP")


async def test_before_the_first_child_the_page_answers() -> None:
    async with stage() as on:
        on.progress = Progress("Fetching")
        gate = on.own_gate()
        await gate.open_ports()
        assert gate.state == MAINTENANCE
        answer = await ask(on.port)
        assert status_of(answer) == 503
        assert "Fetching" in body_of(answer)
        assert gate.slots(0) == []
        assert gate.probe_target(0) == ("127.0.0.1", on.port, None)
        assert await gate.drained(0, 0.0)


async def test_held_clients_are_answered_by_the_next_program_on_the_port(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.prepare(0)
        with http_server(on.port, tmp_path / "v1", "v1") as old:
            await listening(old)
            await gate.serve(0)
            assert body_of(await ask(on.port)) == "v1"
            await gate.hold(1)  # while the old one still serves
            assert body_of(await ask(on.port)) == "v1"
            await terminate(old)
            clients: list[socket.socket] = []
            while len(clients) < 30:  # refused until the gate has the port: the documented gap
                try:
                    clients.append(await connect(on.port))
                except ConnectionRefusedError:
                    await asyncio.sleep(0.001)
            for client in clients[:15]:
                await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await gate.prepare(1)
            with pytest.raises(ConnectionRefusedError):
                await connect(on.port)
            with http_server(on.port, tmp_path / "v2", "v2") as new:
                await listening(new)
                await gate.serve(1)
                for number, client in enumerate(clients):
                    if number >= 15:
                        await asyncio.get_running_loop().sock_sendall(client, REQUEST)
                    with client:
                        assert body_of(await read_all(client)) == "v2"
                assert body_of(await ask(on.port)) == "v2"
        await gate.detach()
        assert answered(on, "held") == 30
        assert answered(on, "page") == 0


async def test_when_a_hold_ends_everyone_gets_the_page() -> None:
    async with stage() as on:
        gate = on.own_gate(hold=0.1)
        await gate.open_ports()
        await gate.hold(0)
        answers = await asyncio.gather(*(ask(on.port) for _ in range(10)))
        assert [status_of(answer) for answer in answers] == [503] * 10
        assert gate.state == MAINTENANCE
        assert status_of(await ask(on.port)) == 503


async def test_who_is_held_gets_the_page_when_the_hold_ends_while_the_port_is_left_to_a_child() -> None:
    async with stage() as on:
        gate = on.own_gate(hold=0.2)
        await gate.open_ports()
        await gate.hold(0)
        waits = asyncio.ensure_future(ask(on.port))
        await eventually(lambda: gate._acceptor._in_hand == 1)
        await gate.prepare(0)
        assert status_of(await waits) == 503
        with socket.create_server(("127.0.0.1", on.port)):  # the gate did not take the port back
            assert gate.state == MAINTENANCE


async def test_a_child_that_failed_gives_way_to_the_page_again(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.prepare(0)
        with http_server(on.port, tmp_path, "v1") as child:
            await listening(child)
            await gate.maintain()
            await terminate(child)
            await gate.prepare(0)  # waits until the gate has had the port
            await gate.maintain()
        await eventually(lambda: gate._doors[0].listener is not None)
        assert status_of(await ask(on.port)) == 503


async def test_a_port_taken_by_a_stranger_is_an_operators_case_that_names_it() -> None:
    async with stage() as on:
        with socket.create_server(("127.0.0.1", on.port)):
            gate = on.own_gate(bind_deadline=0.05)
            with pytest.raises(OperatorNeeded, match=f"pid {os.getpid()}") as caught:
                await gate.open_ports()
            assert caught.value.reason == "PortTaken"
            assert gate.state == CLOSED
            assert on.holder.notes == {}
        await gate.open_ports()
        assert status_of(await ask(on.port)) == 503


async def test_a_stranger_that_takes_the_port_between_two_children_is_named_too() -> None:
    async with stage() as on:
        gate = on.own_gate(bind_deadline=0.05)
        await gate.open_ports()
        await gate.serve(0)
        with socket.create_server(("127.0.0.1", on.port)):
            await gate.hold(1)
            with pytest.raises(OperatorNeeded, match="taken by"):
                await gate.prepare(1)
        await gate.prepare(1)


async def test_a_port_that_is_forbidden_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as on:

        def forbidden(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("agent.traffic.own.Door._bound", forbidden)
        gate = on.own_gate()
        with pytest.raises(OperatorNeeded) as caught:
            await gate.open_ports()
        assert caught.value.reason == "PortForbidden"


async def test_a_successor_leaves_a_serving_child_alone(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.prepare(0)
        with http_server(on.port, tmp_path, "v1") as child:
            await listening(child)
            await gate.serve(0)
            await gate.detach()
            successor = on.own_gate()
            await successor.open_ports()
            await successor.prepare(0)
            assert successor.state == GateState(Mode.OPEN, 0)
            assert body_of(await ask(on.port)) == "v1"


async def test_a_successor_leaves_the_port_to_a_child_that_is_just_starting(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.hold(0)
        await gate.prepare(0)
        await gate.detach()
        successor = on.own_gate()
        await successor.open_ports()
        assert successor.state == GateState(Mode.HOLDING, 0)
        with http_server(on.port, tmp_path, "v1") as child:
            await listening(child)
            await successor.serve(0)
            assert body_of(await ask(on.port)) == "v1"


async def test_a_successor_shows_the_page_where_its_predecessor_did() -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.detach()
        with pytest.raises(ConnectionRefusedError):
            await connect(on.port)
        successor = on.own_gate()
        await successor.open_ports()
        await eventually(lambda: successor._doors[0].listener is not None)
        assert status_of(await ask(on.port)) == 503


async def test_a_relay_to_a_program_that_is_gone_gives_the_page() -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.hold(0)
        waits = asyncio.ensure_future(ask(on.port))
        await eventually(lambda: gate._acceptor._in_hand == 1)
        await gate.serve(0)  # and nobody listens
        assert status_of(await waits) == 503


async def test_a_closed_gate_has_let_go_of_the_port() -> None:
    async with stage() as on:
        gate = on.own_gate()
        with pytest.raises(NotNow):
            await gate.prepare(0)
        await gate.open_ports()
        await gate.close()
        assert (gate.state, on.holder.notes) == (CLOSED, {})
        with socket.create_server(("127.0.0.1", on.port)):
            pass
        await gate.close()


async def test_many_restarts_answer_every_client_that_got_in(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.own_gate()
        await gate.open_ports()
        await gate.hold(0)
        for number in range(3):
            clients = [asyncio.ensure_future(ask(on.port)) for _ in range(20)]
            await eventually(lambda: gate._acceptor._in_hand == 20)
            await gate.prepare(number % 2)
            with http_server(on.port, tmp_path / f"v{number}", f"v{number}") as child:
                await listening(child)
                await gate.serve(number % 2)
                answers = await asyncio.wait_for(asyncio.gather(*clients), DEADLINE)
                assert {body_of(answer) for answer in answers} == {f"v{number}"}
                await gate.hold(1 - number % 2)
            await eventually(lambda: gate._doors[0].listener is not None)
