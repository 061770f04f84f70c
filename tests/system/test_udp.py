"""UDP ports through the whole agent: the program binds them by itself, versions take turns."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

from tests.kit.box import Box, Load

SERVER = """
import os, socket
version = open("bin/VERSION").read().split()[0]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(os.environ["PORT_TIME"])))
assert os.environ["PORT"] == os.environ["PORT_TIME"]
while True:
    _, client = sock.recvfrom(100)
    sock.sendto(version.encode(), client)
"""


async def ask(port: int) -> str:
    """What the server says; "" when there is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", port))
        try:
            await loop.sock_sendall(client, b"?")
            return (await asyncio.wait_for(loop.sock_recv(client, 100), 0.2)).decode()
        except OSError:  # refused, or no answer (TimeoutError)
            return ""


async def test_versions_of_a_udp_server_take_turns(box: Box) -> None:
    parts: dict[str, Any] = {
        "listen": {"time": {"port": box.port, "protocol": "udp", "address": "127.0.0.1"}},
        "socket": None,
        "run": {"command": [sys.executable, "-S", "-c", SERVER]},
        "health": {"alive": "100ms", "probation": "200ms"},
    }
    await box.deploy("1.0", **parts)
    await box.start()
    await box.proven("1.0")
    assert await ask(box.port) == "1.0"
    await box.deploy("2.0", push=True, **parts)
    await box.proven("2.0")
    assert await ask(box.port) == "2.0"
    assert "stop" in [step["name"] for step in (await box.history())[0]["steps"]]


BOTH = """
import os, selectors, signal, socket, sys
version = open("bin/VERSION").read().split()[0]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", int(os.environ["PORT_DNS"])))
streams = socket.create_server(("127.0.0.1", int(os.environ["PORT_HTTP"])))
ready = selectors.DefaultSelector()
ready.register(datagrams, selectors.EVENT_READ)
ready.register(streams, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is datagrams:
            datagrams.sendto(version.encode(), datagrams.recvfrom(100)[1])
            continue
        client, _ = streams.accept()
        with client:
            if client.recv(4096):
                client.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n" + version.encode())
"""


async def test_a_program_with_a_udp_port_beside_a_tcp_one_is_restarted_and_its_tcp_clients_are_held(
    box: Box,
) -> None:
    number = box.port  # the same for both, as with DNS
    parts: dict[str, Any] = {
        "listen": {
            "http": {"port": number, "address": "127.0.0.1"},
            "dns": {"port": number, "protocol": "udp", "address": "127.0.0.1"},
        },
        "socket": None,
        "run": {"command": [sys.executable, "-S", "-c", BOTH]},
        "health": {"http": "/", "interval": "50ms", "deadline": "20s", "probation": "200ms"},
    }
    await box.deploy("1.0", **parts)
    await box.start()
    await box.proven("1.0")
    async with Load(number) as load:
        for version in ("2.0", "3.0"):
            await box.deploy(version, push=True, **parts)
            await box.proven(version)
            assert await ask(number) == version
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0"}
