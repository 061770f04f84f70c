"""What an agent is told by the keeper first: all that is kept, and then every change of it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import asdict

from agent.keeper.client import KeeperClient
from agent.keeper.protocol import VERSION, ChildRecord, Decoder, encode, receive


async def test_the_end_of_a_child_that_is_told_right_behind_the_greeting_is_not_missed() -> None:
    keeper, agents = socket.socketpair()
    running = ChildRecord("web-1", 4711, 0.0, "")
    ended = ChildRecord("web-1", 4711, 0.0, "", code=7)

    def greet() -> None:
        data, descriptors = receive(keeper)
        (asked,) = Decoder().feed(data, descriptors)
        held = {"version": VERSION, "pid": 1, "children": [asdict(running)], "slots": [], "notes": {}}
        told = {"event": "exited", "child": asdict(ended)}
        keeper.sendall(encode({"id": asked["id"], "ok": held}) + encode(told))

    with keeper:
        greeting = asyncio.ensure_future(asyncio.to_thread(greet))
        client = await KeeperClient.connect(agents.detach())
        await greeting
        async with asyncio.timeout(30):
            assert (await client.wait("web-1")).code == 7
        await client.aclose()
