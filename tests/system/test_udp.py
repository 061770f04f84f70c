"""UDP ports through the whole agent: the program binds them by itself, versions take turns."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

from tests.kit.box import Box

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
