"""What clients of every kind get on the public port while no version serves."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import DEADLINE, Box
from tests.kit.certificates import certificate
from tests.kit.world import World

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGE_AT_ONCE: dict[str, Any] = {"swap": "restart", "maintenance": {"hold": "0s", "retry_after": "7s"}}
PATIENT = {"deadline": "30s"}

GRPC = """
import json, sys, grpc
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    try:
        channel.unary_unary("/pkg.Service/Call")(b"hello", timeout=20)
    except grpc.RpcError as error:
        print(json.dumps([error.code().name, error.details()]))
"""


@pytest.fixture
def world(box: Box) -> World:
    return World(box)


async def updating(world: World, version: str, **parts: Any) -> asyncio.Task[tuple[int, dict[str, Any]]]:
    """A version is on its way that does not get healthy until it is let: its old one is gone."""
    world.pull(f"sick-{version}")
    commit = await world.deploy(version, **parts, **PAGE_AT_ONCE, health=PATIENT)
    waiting = world.waiting(commit)
    await world.box.app_is(run__phase="probe", gate="maintenance")
    return waiting


async def updated(world: World, version: str, waiting: asyncio.Task[tuple[int, dict[str, Any]]]) -> None:
    """It is let, and serves."""
    world.release(f"sick-{version}")
    assert (await waiting)[0] == 202
    await world.box.proven(version)


async def progress(box: Box) -> dict[str, Any]:
    """As programs are told it."""
    status, text = await box.get(headers={"Accept": "application/json"})
    assert status == 503
    found: dict[str, Any] = json.loads(text)["progress"]
    return found


async def test_the_page_tells_phase_progress_and_what_is_left_going_by_earlier_updates(world: World) -> None:
    box = world.box

    async def longer() -> bool:
        return bool((await progress(box))["detail"] == "longer than usual")

    world.pull("sick-1.0")
    await world.deploy("1.0", **PAGE_AT_ONCE, health=PATIENT)
    await box.start()
    await box.app_is(run__phase="probe")
    told = await progress(box)
    assert (told["phase"], told["left"]) == ("Starting", None), "it never started before, so nobody knows"
    status, html = await box.get(headers=BROWSER)
    assert (status, 'http-equiv="refresh"' in html, "<script" in html) == (503, True, False)
    world.release("sick-1.0")
    await box.proven("1.0")

    waiting = await updating(world, "2.0")
    await box.until(longer)
    assert (await progress(box))["left"] is None
    await updated(world, "2.0", waiting)

    waiting = await updating(world, "3.0")
    told = await progress(box)
    assert (told["phase"], told["left"] > 0, told["percent"] < 100) == ("Starting", True, True)
    assert " s left</p>" in (await box.get(headers=BROWSER))[1]
    assert (await box.app())["run"]["seconds_left"] > 0
    await updated(world, "3.0", waiting)


async def test_a_grpc_client_is_told_unavailable(world: World) -> None:
    await world.running("1.0", **PAGE_AT_ONCE)
    waiting = await updating(world, "2.0")
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GRPC, str(world.box.port), stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await client.communicate()
    assert json.loads(answer) == ["UNAVAILABLE", "this service is being updated, try again in 7 s"]
    await updated(world, "2.0", waiting)


SERVER = Path(__file__).with_name("plain_server.py")


def speaking(world: World, version: str, certificate: Path | None, **parts: Any) -> dict[str, Any]:
    """An app with a protocol of its own, over TLS when there is a certificate."""
    command = [
        sys.executable,
        "-S",
        str(SERVER),
        version,
        *([] if certificate is None else [str(certificate)]),
    ]
    app = world.app(version, artifact=None, run={"command": command}, socket=None, swap="restart", **parts)
    return {**app, "health": {"tcp": "main", "interval": "50ms", "deadline": "30s", "probation": "100ms"}}


async def say(port: int, certificate: Path | None) -> str:
    """Say something; the answer, "" when the connection is closed without one."""
    tls = None if certificate is None else ssl.create_default_context(cafile=str(certificate))
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            writer.write(b"hello")
            answer = (await reader.read()).decode()
            writer.close()
            return answer
    except ConnectionError:  # the end of the connection where a handshake should be
        return ""


@pytest.mark.parametrize("over", ["tcp", "tls"])
async def test_clients_of_another_protocol_are_held_for_the_next_version_or_closed_without_a_byte(
    world: World, over: str, tmp_path: Path
) -> None:
    box, pem = world.box, certificate(tmp_path) if over == "tls" else None
    hold = {"hold": "30s"}
    commit = await world.commit({"web": speaking(world, "1.0", pem, maintenance=hold)})
    await box.start()
    await box.proven("1.0")

    world.pull("late-2.0")
    commit = await world.commit({"web": speaking(world, "2.0", pem, maintenance=hold)})
    waiting = world.waiting(commit)
    await box.app_is(gate="holding", run__phase="probe")
    held = [asyncio.ensure_future(say(box.port, pem)) for _ in range(20)]
    await box.until(lambda: all_wait(box.port, 20))
    world.release("late-2.0")
    assert await asyncio.gather(*held) == ["2.0 hello"] * 20
    assert (await waiting)[0] == 202
    await box.proven("2.0")

    world.pull("late-3.0")
    commit = await world.commit({"web": speaking(world, "3.0", pem, maintenance={"hold": "0s"})})
    waiting = world.waiting(commit)
    await box.app_is(gate="maintenance", run__phase="probe")
    assert await asyncio.gather(*(say(box.port, pem) for _ in range(5))) == [""] * 5
    world.release("late-3.0")
    assert (await waiting)[0] == 202
    assert await say(box.port, pem) == "3.0 hello"
    told = [line for line in box.output if "clients of web speak TLS" in line]
    assert len(told) == (over == "tls")


async def all_wait(port: int, count: int) -> bool:
    """Whether so many clients have connected, and wait to be accepted."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[4] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return max(int(queues.split(":")[1], 16) for queues in listening) >= count
