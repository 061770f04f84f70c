"""A network that fails: a proxy between a client and a real server on loopback, whose ways can be changed.

async with Faulty(port) as network:
    await network.become("reset")          # what holds from now on
    await network.become("")               # all is well again
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from tests.kit.ports import free_port

SOME = 200  # bytes that come through before a connection is reset or forgotten
SLOW = 1.0  # seconds for each byte that drips


class Faulty:
    """Listens on `port` and passes bytes on to the server at `behind`, as far as the fault lets it.

    silent: accepted, then nothing. dripping: a byte a second. reset: RST in the
    middle of an answer. half-open: the answer stops in the middle, and the connection stays. 500: whatever
    is asked by HTTP is answered so. With `tls` the clients speak that, and the server behind does not.
    """

    def __init__(self, behind: int, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.port = free_port()
        self.met = 0  # connections that met a fault
        self._behind = behind
        self._fault = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whoever connects must have ended: asyncio leaks what it accepts while a server is closed."""
        assert self._server is not None
        self._server.close()
        await self.become("")

    async def become(self, fault: str) -> None:
        """From now on it fails so; "" is not at all. Connections under way are cut."""
        self._fault = fault
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.met += bool(self._fault)
        try:
            if self._fault == "silent":
                await asyncio.Event().wait()
            if self._fault == "500":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._behind)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back), self._answer(there, writer))
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # cut by whoever ends it
        finally:
            self._tasks.discard(task)
            for each in (writer, *([back] if "back" in locals() else [])):
                self._writers.discard(each)
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._fault:
            await self._pass(reader, writer)
            return
        if self._fault == "dripping":
            while data := await reader.read(1):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(SLOW)
            return
        writer.write(await reader.read(SOME))
        await writer.drain()
        if self._fault == "half-open":
            await asyncio.Event().wait()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
