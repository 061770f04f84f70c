"""`drain: {connections: true}` on the real agent: clients stay with the old version until they leave."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import DEADLINE, Box

# It has no graceful stop: TERM ends it at once, with whatever it was doing.
SERVER = """
import os, socketserver, sys
class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(sys.argv[1].encode() + b" " + line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("127.0.0.1", int(os.environ["PORT"])), Lines).serve_forever()
"""


class Client:
    """A connection, and what is said on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def of(cls, port: int) -> Client:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def say(self, what: str) -> str:
        """Say a line; the answer, "" when the connection has ended."""
        self._writer.write(f"{what}\n".encode())
        async with asyncio.timeout(DEADLINE):
            return (await self._reader.readline()).decode().strip()

    def leave(self) -> None:
        """Close it."""
        self._writer.close()


def app(version: str, mode: str, deadline: str) -> dict[str, Any]:
    """The server, which waits so long for its connections."""
    return {
        "artifact": None,
        "run": {"command": [sys.executable, "-S", "-c", SERVER, version]},
        "socket": mode,
        "health": {"tcp": "main", "interval": "50ms", "deadline": "20s", "probation": "100ms"},
        "drain": {"connections": True, "deadline": deadline},
    }


@pytest.mark.parametrize("mode", ["adopt", "relay"])
async def test_a_connection_is_served_by_the_old_version_until_its_client_leaves(box: Box, mode: str) -> None:
    await box.deploy("1.0", **app("1.0", mode, "10m"))
    await box.start()
    old = (await box.proven("1.0"))["child"]["pid"]
    client = await Client.of(box.port)
    assert await client.say("a") == "1.0 a"
    await box.deploy("2.0", push=True, **app("2.0", mode, "10m"))
    await box.proven("2.0")
    other = await Client.of(box.port)
    assert (await other.say("b"), await client.say("c")) == ("2.0 b", "1.0 c")
    client.leave()

    async def gone() -> bool:
        return not Path(f"/proc/{old}").exists()

    await box.until(gone)
    assert await other.say("d") == "2.0 d"
    other.leave()


async def test_at_the_deadline_who_has_not_left_is_cut_off(box: Box) -> None:
    await box.deploy("1.0", **app("1.0", "adopt", "200ms"))
    await box.start()
    await box.proven("1.0")
    client = await Client.of(box.port)
    assert await client.say("a") == "1.0 a"
    await box.deploy("2.0", push=True, **app("2.0", "adopt", "200ms"))
    await box.proven("2.0")

    async def cut_off() -> bool:
        try:
            return await client.say("b") == ""
        except ConnectionError:
            return True

    await box.until(cut_off)
    client.leave()
