"""Who goes on for a program whose first process ends: never the agent, though it has its sockets open too."""

from __future__ import annotations

import sys
from typing import Any

from tests.kit.box import Box
from tests.kit.programs import plain

# On TERM it ends with 0, and leaves somebody behind who is in the trap still, but has no socket.
SERVER = """
import os, signal, socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen(64)
def end(*_):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        listener.close()
        time.sleep(1)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        body = os.environ["EMPTYBOX_VERSION"].encode() + b"\\n"
        connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
"""


async def test_the_agent_is_not_taken_for_the_heir_of_a_child_that_ended(box: Box) -> None:
    artifact = plain(box, "web", SERVER)
    run = {"command": [sys.executable, "-S", "bin/web"]}
    listen = {"http": {"port": box.port, "address": "127.0.0.1"}}
    health = {"http": "/", "interval": "50ms", "probation": "100ms"}

    async def deploy(version: str) -> None:
        parts: dict[str, Any] = {
            "artifact": artifact,
            "run": run,
            "listen": listen,
            "socket": "adopt",
            "health": health,
        }
        commit = await box.deploy(version, env={"BUILD": version}, **parts)
        if box.process is None:
            await box.start()
        else:
            await box.webhook(commit)
        await box.proven(version)

    await deploy("1.0")
    agent = await box.agent_pid()
    await deploy("2.0")
    await box.until(lambda: said(box, "web: child ended with code 0"))
    await deploy("3.0")
    assert await box.agent_pid() == agent
    assert not any(line.startswith("keeper | the agent ended") for line in box.output)


async def said(box: Box, text: str) -> bool:
    return any(text in line for line in box.output)
