from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

import pytest

from agent.domain.spec import PortSpec
from agent.keeper.client import PortTaken
from agent.keeper.slots import COUNT_MAX
from agent.source.schema.run import INSTANCES_MAX
from agent.traffic.slots import SlotGroup, slots_for, waiting
from agent.traffic.steering import always, attach
from tests.kit.keepers import Agent, KeeperProcess, python

SERVE = """
import http.server, os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ
assert os.environ["LISTEN_FDS"] == "2" and os.environ["LISTEN_FDNAMES"] == "http:metrics"
assert sorted(os.listdir("/proc/self/fd"))[:-1] == ["0", "1", "2", "3", "4"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"pid %d" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
"""


async def get(port: int) -> str:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    return answer.rpartition("\r\n")[2]


async def test_a_child_serves_on_the_sockets_it_is_handed_while_agents_come_and_go(
    kept: KeeperProcess,
) -> None:
    agent = await kept.agent()
    for key in ("web", "metrics"):
        for sock in await agent.client.open(key, "127.0.0.1", 0, 1):
            sock.close()
    port = agent.client.groups["web"].port
    slots = [("web", 0, "http"), ("metrics", 0, "metrics")]
    record = await agent.client.spawn(python("x", SERVE, slots=slots, note="the pair"))
    await agent.client.note("side", "0")
    assert await get(port) == f"pid {record.pid}"
    agent.kill()
    assert await get(port) == f"pid {record.pid}"
    successor = await kept.agent()
    assert successor.client.children == {"x": record}
    assert successor.client.notes == {"side": "0"}
    assert successor.client.groups == agent.client.groups
    (sock,) = await successor.client.open("web", "127.0.0.1", port, 1)
    with sock:
        assert os.fstat(sock.fileno()).st_ino == os.stat(f"/proc/{record.pid}/fd/3").st_ino
    assert await get(port) == f"pid {record.pid}"


async def test_a_group_has_room_for_the_most_instances_there_can_be(agent: Agent) -> None:
    sockets = await agent.client.open("web", "127.0.0.1", 0, slots_for(INSTANCES_MAX - 1))
    try:
        assert len({os.fstat(sock.fileno()).st_ino for sock in sockets}) == len(sockets) == COUNT_MAX
        group = SlotGroup("web", PortSpec(name="http", port=agent.client.groups["web"].port), sockets)
        group.steer(group.of(0), probe=2, canary=(group.of(1), 50))
        assert group.probe_source(COUNT_MAX - 1) == "127.83.1.128"
        with socket.create_connection(("127.0.0.1", group.port.port), timeout=10):
            assert sum(map(waiting, sockets)) == 1
    finally:
        for sock in sockets:
            sock.close()


async def test_a_group_grows_behind_the_sockets_it_has(agent: Agent) -> None:
    first = await agent.client.open("web", "127.0.0.1", 0, 3)
    port = agent.client.groups["web"].port
    more = await agent.client.open("web", "127.0.0.1", port, 5)
    try:
        assert agent.client.groups["web"].count == len(more) == 5
        assert [os.fstat(s.fileno()).st_ino for s in more[:3]] == [os.fstat(s.fileno()).st_ino for s in first]
        for index, sock in enumerate(more):
            attach(more[0], always(index))
            with socket.create_connection(("127.0.0.1", port), timeout=10):
                assert waiting(sock) == 1
    finally:
        for sock in (*first, *more):
            sock.close()


async def test_a_group_is_opened_once_and_listens_in_order(agent: Agent) -> None:
    first = await agent.client.open("web", "127.0.0.1", 0, 3, backlog=16)
    port = agent.client.groups["web"].port
    again = await agent.client.open("web", "127.0.0.1", port, 3)
    try:
        assert [os.fstat(s.fileno()).st_ino for s in first] == [os.fstat(s.fileno()).st_ino for s in again]
        for sock in first:
            assert sock.getsockname() == ("127.0.0.1", port)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert os.get_blocking(sock.fileno()), "children may count on it"
            assert not os.get_inheritable(sock.fileno())
        with pytest.raises(FileExistsError):
            await agent.client.open("web", "127.0.0.2", port, 3)
        for sock in await agent.client.open("web", "127.0.0.1", port, 2):
            again.append(sock)
        assert len(again) == 6, "a group is told whole"
    finally:
        for sock in (*first, *again):
            sock.close()
    await agent.client.close_slots("web")
    await agent.client.close_slots("web")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_until_somebody_steers_it_all_connections_to_a_group_wait_at_its_first_slot(
    agent: Agent, address: str
) -> None:
    sockets = await agent.client.open("web", address, 0, 3)
    port = agent.client.groups["web"].port
    clients = [await asyncio.open_connection(address, port) for _ in range(20)]
    for sock in sockets:
        sock.setblocking(False)
    for _ in clients:
        sockets[0].accept()[0].close()
    for sock in sockets:
        with pytest.raises(BlockingIOError):
            sock.accept()
        sock.close()
    for _, writer in clients:
        writer.close()


async def test_a_port_in_use_is_refused_with_the_name_of_its_holder(agent: Agent) -> None:
    # SO_REUSEPORT on both sides would let the two share the port, silently.
    code = """
import socket, sys, signal
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", 0))
s.listen()
print(s.getsockname()[1], flush=True)
sys.stdin.read()
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        with pytest.raises(PortTaken) as caught:
            await agent.client.open("web", "127.0.0.1", port, 2)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.pid == process.pid
        assert f"port {port} on 127.0.0.1 is taken by " in str(caught.value)
        assert f"(pid {process.pid})" in str(caught.value)
        with pytest.raises(PortTaken):
            await agent.client.open("web", "0.0.0.0", port, 2)
    finally:
        process.stdin.close()
        await process.wait()
    for sock in await agent.client.open("web", "127.0.0.1", port, 2):
        sock.close()


async def test_an_address_that_is_not_ours_is_an_error(agent: Agent) -> None:
    with pytest.raises(OSError) as caught:
        await agent.client.open("web", "192.0.2.1", 8080, 1)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError):
        await agent.client.open("web", "not an address", 8080, 1)


async def test_descriptors_of_a_cancelled_open_are_closed(agent: Agent) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for turns in range(8):
        task = asyncio.ensure_future(agent.client.open(f"web{turns}", "127.0.0.1", 0, 3))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            for sock in task.result():
                sock.close()
        await asyncio.wait([task])
    await agent.client.note("later", "than all of them")
    assert len(os.listdir("/proc/self/fd")) == before
