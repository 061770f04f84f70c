from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from agent.traffic.relay import relay
from tests.traffic.support import eventually, free_port

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """A server on a free port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


@asynccontextmanager
async def relayed(
    port: int, source: str | None = None
) -> AsyncIterator[tuple[socket.socket, asyncio.Task[bool]]]:
    """A client whose other end is relayed to `port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with client, theirs:
        client.setblocking(False)
        theirs.setblocking(False)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(relay(theirs, ("127.0.0.1", port), source=source))
            yield client, task
            task.cancel()


async def test_an_end_of_stream_is_passed_on_by_itself_and_the_answer_still_comes() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.read())  # read to the end of the stream

    loop = asyncio.get_running_loop()
    async with server(talk) as port, relayed(port) as (client, task):
        await loop.sock_sendall(client, b"hello")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := await loop.sock_recv(client, 100):
            answer += data
        assert answer == b"got hello"
        assert await task


async def test_megabytes_pass_both_ways_unchanged() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    loop = asyncio.get_running_loop()
    data = bytes(range(256)) * (4 << 12)
    async with server(talk) as port, relayed(port) as (client, _), asyncio.TaskGroup() as group:

        async def send() -> None:
            await loop.sock_sendall(client, data)
            client.shutdown(socket.SHUT_WR)

        group.create_task(send())
        back = bytearray()
        while piece := await loop.sock_recv(client, 1 << 16):
            back += piece
        assert bytes(back) == data


async def test_a_reader_that_stops_stops_its_writer() -> None:
    go_on, received = asyncio.Event(), bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        while data := await reader.read(1 << 20):
            received.extend(data)

    size = 64 << 20
    async with server(talk) as port, relayed(port) as (client, task):
        sent = 0
        block = bytes(1 << 20)
        stuck = 0
        while sent < size and stuck < 20:
            try:
                sent += client.send(block)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                await asyncio.sleep(0.01)
        assert sent < size
        go_on.set()
        client.shutdown(socket.SHUT_WR)
        assert await task
        await eventually(lambda: len(received) == sent)


async def test_a_broken_connection_is_reset_on_the_other_side_and_not_ended() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()

    loop = asyncio.get_running_loop()
    async with server(talk) as port, relayed(port) as (client, task):
        await loop.sock_sendall(client, b"x")
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(client, 1)
        assert await task


async def test_nobody_at_the_other_end_leaves_the_client_untouched() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with client, theirs:
        client.sendall(b"still here")
        theirs.setblocking(False)
        assert not await relay(theirs, ("127.0.0.1", free_port()))
        assert await loop.sock_recv(theirs, 100) == b"still here"


async def test_a_listener_whose_short_queue_is_full_is_tried_again_until_there_is_room() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        full.setblocking(False)
        with socket.create_connection(full.getsockname()):  # a backlog of 0 holds one
            async with relayed(full.getsockname()[1]) as (client, _):
                await asyncio.sleep(0.12)
                for _ in range(2):
                    served, _ = await asyncio.wait_for(loop.sock_accept(full), 20)
                    with served:
                        await loop.sock_sendall(served, b"at last")
                assert await loop.sock_recv(client, 100) == b"at last"


async def test_the_source_address_can_be_chosen() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())

    async with server(talk) as port, relayed(port, "127.9.9.9") as (client, _):
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"127.9.9.9"


async def test_cancelled_it_closes_both_ends() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        begun.set()
        await reader.read()
        ended.set()

    loop = asyncio.get_running_loop()
    async with server(talk) as port, relayed(port) as (client, task):
        await loop.sock_sendall(client, b"x")
        async with asyncio.timeout(20):
            await begun.wait()
            task.cancel()
            assert await loop.sock_recv(client, 1) == b""
            await ended.wait()
