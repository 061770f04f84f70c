"""kill -9 of the serving child: whoever it had accepted is lost, whoever waited is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.swarm import swarm
from tests.kit.box import Box
from tests.kit.programs import plain

MODES = ("fd", "adopt")
ACCEPTED, WAITING = 8, 20

# Its first life accepts so many connections and no more, and answers none; later lives answer everyone.
SERVER = """
import os, socket, time
if os.environ.get("LISTEN_FDS"):
    listener = socket.socket(fileno=3)
else:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen(64)
listener.setblocking(True)
first = not os.path.exists(os.environ["MARK"])
open(os.environ["MARK"], "w").close()
held = []
while True:
    connection, _ = listener.accept()
    if first:
        held.append(connection)
        print("accepted", len(held), flush=True)
        if len(held) == int(os.environ["ACCEPTED"]):
            time.sleep(600)
        continue
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nagain\\n")
"""


async def restarted(box: Box, pid: int) -> int:
    """Wait for the child after this one; its pid."""

    async def another() -> Any:
        app = await box.app()
        return (
            app["state"] == "running" and app["child"] and app["child"]["pid"] != pid and app["child"]["pid"]
        )

    found: int = await box.until(another)
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_kill_9_of_the_serving_child_under_load_loses_only_what_it_had_accepted(
    box: Box, mode: str
) -> None:
    run = {"command": [sys.executable, "-S", "bin/web"], "restart": {"backoff": "50ms"}}
    await box.deploy("1.0", socket=mode, run=run)
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    async with swarm("127.0.0.1", box.port, rate=200) as clients:
        for kill in range(1, 4):
            await clients.answered("1.0", kill * 100)
            os.kill(pid, signal.SIGKILL)
            pid = await restarted(box, pid)
        await clients.answered("1.0", clients.new["1.0"] + 200)
    assert set(clients.new) <= {"1.0", "lost empty"}
    assert clients.new["lost empty"] <= 3  # this server accepts one at a time


async def ask(port: int) -> str:
    """Status of an answer, or what became of the connection instead."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return type(error).__name__
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    except ConnectionError:
        return "lost"
    finally:
        writer.close()
    return answer.split(b" ", 2)[1].decode() if answer else "lost"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("hold", "backoff", "answer"),
    [("20s", "100ms", "200"), ("200ms", "3s", "503")],
    ids=["held for the restart", "the page when it takes too long"],
)
async def test_of_clients_at_a_killed_child_exactly_the_accepted_are_lost(
    box: Box, tmp_path: Path, mode: str, hold: str, backoff: str, answer: str
) -> None:
    web = {
        "version": "1.0",
        "artifact": plain(box, "web", SERVER),
        "run": {"command": [sys.executable, "-S", "bin/web"], "restart": {"backoff": backoff}},
        "env": {"MARK": str(tmp_path / "mark"), "ACCEPTED": str(ACCEPTED)},
        "listen": {"http": {"port": box.port, "address": "127.0.0.1"}},
        "socket": mode,
        "health": {"alive": "50ms", "probation": "100ms"},
        "maintenance": {"hold": hold},
    }
    await box.commit({"schema": 1, "apps": {"web": web}})
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    clients = [asyncio.ensure_future(ask(box.port)) for _ in range(ACCEPTED + WAITING)]

    async def accepted() -> bool:
        return any(line.endswith(f"accepted {ACCEPTED}") for line in box.output)

    await box.until(accepted)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        became = await asyncio.gather(*clients)
    assert {what: became.count(what) for what in set(became)} == {"lost": ACCEPTED, answer: WAITING}
