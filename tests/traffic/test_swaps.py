"""Swaps under load: many flips between real children while clients in another process keep coming."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.traffic.gate import SlotGate
from tests.kit.load import Load, load
from tests.traffic.support import DEADLINE, Stage, child_on, stage, terminate, who

FLIPS = 20
PER_CHILD = 60  # answers of a child before the next one comes


async def swap(
    on: Stage, gate: SlotGate, stack: ExitStack, old: subprocess.Popen[str], number: int
) -> subprocess.Popen[str]:
    """The order that loses nothing: start, flip, drain, TERM, take over."""
    side = number % 2
    await gate.prepare(side)
    new = stack.enter_context(child_on(on.slot(gate, side), f"v{number}"))
    await gate.serve(side)
    await gate.drained(1 - side, DEADLINE)
    assert await terminate(old) == 0
    await gate.take_over(1 - side)
    return new


async def test_no_new_connection_is_lost_in_20_swaps_under_load() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with ExitStack() as stack:
            await gate.prepare(0)
            child = stack.enter_context(child_on(on.slot(gate, 0), "v0"))
            await gate.serve(0)
            async with load("127.0.0.1", on.port) as running:
                await running.answered("v0", PER_CHILD)
                for number in range(1, FLIPS + 1):
                    child = await swap(on, gate, stack, child, number)
                    await running.answered(f"v{number}", PER_CHILD)
                await running.stop()
        assert running.failures == {}
        assert set(running.counts) == {f"v{number}" for number in range(FLIPS + 1)}


async def test_flips_as_fast_as_they_can_be_made_lose_nothing() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v0"), child_on(on.slot(gate, 1), "v1"):
            await gate.serve(0)
            async with load("127.0.0.1", on.port) as running:
                flips = 0
                while min(running.counts["v0"], running.counts["v1"]) < 300:
                    flips += 1
                    await gate.serve(flips % 2)
                    await asyncio.sleep(0)
                await running.stop()
        assert flips > 50
        assert running.failures == {}


async def test_restarts_with_hold_lose_nothing_and_show_no_page() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with ExitStack() as stack:
            child = stack.enter_context(child_on(on.slot(gate, 0), "v0"))
            await gate.serve(0)
            async with load("127.0.0.1", on.port) as running:
                await running.answered("v0", PER_CHILD)
                for number in range(1, 6):
                    side = number % 2
                    await gate.hold(side)
                    await gate.drained(1 - side, DEADLINE)
                    await terminate(child)
                    await gate.take_over(1 - side)
                    await gate.prepare(side)
                    child = stack.enter_context(child_on(on.slot(gate, side), f"v{number}"))
                    await gate.serve(side)
                    await running.answered(f"v{number}", PER_CHILD)
                await running.stop()
        assert running.failures == {}


async def test_from_child_to_page_and_back_every_client_gets_one_or_the_other() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v0"):
            async with load("127.0.0.1", on.port) as running:
                for count in range(1, 11):
                    await gate.serve(0)
                    await running.answered("v0", count * 30)
                    await gate.maintain()
                    await running.answered("status 503", count * 30)
                await running.stop()
        assert set(running.counts) == {"v0", "status 503"}


async def test_a_killed_child_loses_only_what_it_had_accepted() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v0") as old, child_on(on.slot(gate, 1), "v1"):
            await gate.serve(0)
            async with load("127.0.0.1", on.port, workers=8) as running:
                await running.answered("v0", PER_CHILD)
                old.kill()
                await gate.serve(1)
                await gate.take_over(0)
                await running.answered("v1", PER_CHILD)
                await running.stop()
        assert sum(running.failures.values()) <= 1  # this server accepts one at a time


async def test_an_agent_that_dies_and_comes_back_under_load_loses_nothing() -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with child_on(on.slot(gate, 0), "v0"), child_on(on.slot(gate, 1), "v1"):
            await gate.serve(0)
            async with load("127.0.0.1", on.port) as running:
                for count in range(1, 11):
                    await gate.serve(count % 2)
                    await gate.detach()
                    gate = on.slot_gate()
                    await gate.open_ports()
                    await running.answered(f"v{count % 2}", count * 20)
                await running.stop()
        assert running.failures == {}
        assert set(running.counts) == {"v0", "v1"}


NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

CONFIG = """
daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 2;
events {{ worker_connections 200; }}
http {{ access_log off; keepalive_timeout 0; client_body_temp_path {root}/b;
  proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "{name}\\n"; }} }} }}
"""


@contextmanager
def nginx_on(
    on: Stage, gate: SlotGate, side: int, name: str, root: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """An nginx on a slot, by its own way of inheriting sockets."""
    if NGINX is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is not installed")
        pytest.skip("nginx is not installed")
    root.mkdir()
    (root / "nginx.conf").write_text(CONFIG.format(root=root, port=on.port, name=name))
    fd = on.slot(gate, side).fileno()
    process = subprocess.Popen(
        [NGINX, "-e", str(root / "error.log"), "-p", str(root), "-c", str(root / "nginx.conf")],
        pass_fds=[fd], env={"NGINX": f"{fd};"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE)


async def quit_nginx(process: subprocess.Popen[bytes]) -> None:
    """QUIT is nginx's graceful stop."""
    process.send_signal(signal.SIGQUIT)
    assert await asyncio.to_thread(process.wait, DEADLINE) == 0


async def nginx_swaps(on: Stage, gate: SlotGate, stack: ExitStack, running: Load, root: Path) -> None:
    old: subprocess.Popen[bytes] | None = None
    for number in range(4):
        side = number % 2
        await gate.prepare(side, blocking=False)
        new = stack.enter_context(nginx_on(on, gate, side, f"v{number}", root / f"v{number}"))
        await gate.steer_probe(side)
        host, port, source = gate.probe_target(side)
        assert (host, port) == ("127.0.0.1", on.port)
        assert await who(port, source) == f"v{number}"
        await gate.serve(side)
        await gate.drained(1 - side, DEADLINE)
        if old is not None:
            await quit_nginx(old)
        await gate.take_over(1 - side)
        await running.answered(f"v{number}", PER_CHILD)
        old = new


async def test_nginx_with_its_workers_is_swapped_without_a_loss(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        with ExitStack() as stack:
            async with load("127.0.0.1", on.port) as running:
                await running.answered("status 503", 10)
                await nginx_swaps(on, gate, stack, running, tmp_path)
                await running.stop()
        assert running.failures == {"status 503": running.counts["status 503"]}


async def test_a_server_after_another_kind_of_server_finds_a_blocking_socket(tmp_path: Path) -> None:
    async with stage() as on:
        gate = on.slot_gate()
        await gate.open_ports()
        await gate.prepare(0, blocking=False)
        with nginx_on(on, gate, 0, "nginx", tmp_path / "nginx"):
            await gate.serve(0)
            assert await who(on.port) == "nginx"
            assert not os.get_blocking(on.slot(gate, 0).fileno())
            await gate.maintain()
        await gate.take_over(0)
        await gate.prepare(0)
        assert os.get_blocking(on.slot(gate, 0).fileno())
        with child_on(on.slot(gate, 0), "blocking"):
            await gate.serve(0)
            assert await who(on.port) == "blocking"
