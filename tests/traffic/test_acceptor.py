from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.traffic.acceptor import Acceptor
from agent.traffic.slots import waiting
from tests.traffic.support import connect, eventually, group_of, read_all


class Handled:
    """Greets each connection with its tag, and keeps it until `let_go`."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.open: set[socket.socket] = set()
        self.let_go = asyncio.Event()
        self.broken = 0

    async def handle(self, connection: socket.socket, tag: str) -> None:
        self.tags.append(tag)
        self.open.add(connection)
        try:
            await self.let_go.wait()
            await asyncio.get_running_loop().sock_sendall(connection, tag.encode())
        finally:
            self.open.discard(connection)
            connection.close()

    def on_broken(self) -> None:
        self.broken += 1


@asynccontextmanager
async def accepting(at_once: int = 100) -> AsyncIterator[tuple[Acceptor[str], Handled, socket.socket, int]]:
    handled = Handled()
    acceptor = Acceptor("test", handled.handle, handled.on_broken, at_once)
    (listener,) = group_of(1)
    try:
        yield acceptor, handled, listener, listener.getsockname()[1]
    finally:
        await acceptor.aclose()
        listener.close()
    assert not handled.open


async def test_connections_are_handed_over_with_the_tag_of_their_listener() -> None:
    async with accepting() as (acceptor, handled, listener, port):
        acceptor.watch(listener, "a")
        acceptor.watch(listener, "ignored: it is watched already")
        handled.let_go.set()
        with await connect(port) as client:
            assert await read_all(client) == b"a"


async def test_nothing_is_accepted_from_a_listener_that_is_not_watched_any_more() -> None:
    async with accepting() as (acceptor, handled, listener, port):
        acceptor.watch(listener, "a")
        acceptor.unwatch(listener)
        with await connect(port):
            await asyncio.sleep(0.02)
            assert (waiting(listener), handled.tags) == (1, [])
            assert acceptor.accept_all(listener, "b") == 1
            await eventually(lambda: handled.tags == ["b"])


async def test_accepting_stops_at_the_limit_and_goes_on_when_there_is_room() -> None:
    async with accepting(at_once=3) as (acceptor, handled, listener, port):
        acceptor.watch(listener, "a")
        clients = [await connect(port) for _ in range(8)]
        await eventually(lambda: len(handled.tags) == 3 and waiting(listener) == 5)
        handled.let_go.set()
        for client in clients:
            assert await read_all(client) == b"a"
            client.close()


async def test_a_want_of_descriptors_is_waited_out_without_spinning() -> None:
    async with accepting() as (acceptor, handled, listener, port):
        handled.let_go.set()
        client = await connect(port)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = listener.dup()
        lowest = probe.fileno()  # the next descriptor an accept would get
        probe.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            acceptor.watch(listener, "a")
            await eventually(lambda: acceptor._paused)
            assert waiting(listener) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with client:
            assert await read_all(client) == b"a"


async def test_a_listener_that_was_shut_down_is_reported_once_and_left() -> None:
    async with accepting() as (acceptor, handled, listener, _):
        acceptor.watch(listener, "a")
        listener.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: handled.broken == 1)
        await asyncio.sleep(0.02)
        assert handled.broken == 1


async def test_closing_ends_what_is_in_hand_and_gives_it_its_grace_first() -> None:
    async with accepting() as (acceptor, handled, listener, port):
        acceptor.watch(listener, "a")
        with await connect(port) as client:
            await eventually(lambda: handled.tags)
            asyncio.get_running_loop().call_later(0.01, handled.let_go.set)
            await acceptor.aclose(grace=20)
            assert await read_all(client) == b"a"


async def test_a_connection_whose_task_never_began_is_closed_too() -> None:
    async with accepting() as (acceptor, handled, listener, port):
        with await connect(port) as client:
            assert acceptor.accept_all(listener, "a") == 1
            await acceptor._tasks.aclose()  # what aclose comes to once the grace is over
            assert await read_all(client) == b""
        assert handled.tags == []
