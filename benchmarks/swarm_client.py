"""A program: new connections at a steady rate, and clients that keep theirs, each outcome counted.

    swarm_client.py HOST PORT RATE KEPT

RATE new connections a second are opened when their time has come, whatever became of those before (an
open loop: a server that stalls is not spared), at most IN_HAND at once. KEPT clients send one request
after the other on a connection each, with a pause, and connect anew when it is closed.

Every TELL seconds a line of JSON: seconds since the beginning, outcomes of new connections, outcomes of
requests on kept ones, seconds of the slowest new connection, and when each outcome was seen last (seconds
since the epoch). The end of its input ends it: what is under way is finished, then the last line follows.

Outcomes: a version (the first word of an answer with status 200), or one that begins with `lost `. For
kept connections also `lost unanswered`: a request was sent, and the connection ended without a byte for
it; `refused` means that nobody listened when such a client came, and is no request.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import sys
import time
from collections import Counter

PATIENCE = 10.0  # seconds for one request
IN_HAND = 2000
TELL = 0.1
PAUSE = 0.02  # seconds between two requests on a kept connection, on average
AGAIN = 0.005  # seconds until one who was refused comes again
SOURCES = 32  # loopback addresses the clients come from: one alone runs out of ports
IP_BIND_ADDRESS_NO_PORT = 24  # ip(7)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Torn(Exception):
    """The connection ended; `answer` has what came."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("torn")
        self.answer = answer


class Swarm:
    """The clients."""

    def __init__(self, host: str, port: int) -> None:
        self.new: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.slowest = 0.0
        self.seen: dict[str, float] = {}
        self.ended = asyncio.Event()
        self._to = (host, port)
        self._number = 0
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()

    def request(self, keep: bool) -> bytes:
        """A GET."""
        last = "" if keep else "Connection: close\r\n"
        return f"GET / HTTP/1.1\r\nHost: {self._to[0]}:{self._to[1]}\r\n{last}\r\n".encode()

    async def connect(self) -> socket.socket:
        """A connection. Raises OSError."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self._number += 1
            sock.bind((f"127.60.0.{1 + self._number % SOURCES}", 0))
            await self._loop.sock_connect(sock, self._to)
        except BaseException:
            sock.close()
            raise
        return sock

    async def ask(self, sock: socket.socket, request: bytes) -> tuple[str, bytes]:
        """Send a request; the outcome, and the answer's head. Raises Torn, OSError."""
        await self._loop.sock_sendall(sock, request)
        answer = b""
        while True:
            head, end, body = answer.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            if end and length is not None and len(body) >= int(length[1]):
                break
            try:
                data = await self._loop.sock_recv(sock, 65536)
            except ConnectionError:
                raise Torn(answer) from None
            if not data:
                if end and length is None:
                    break
                raise Torn(answer)
            answer += data
        status = head.split(b" ", 2)[1].decode()
        return (body.split(None, 1)[0].decode() if status == "200" else f"lost status {status}"), head

    async def once(self) -> None:
        """One new connection with one request."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                with await self.connect() as sock:
                    outcome, _ = await self.ask(sock, self.request(keep=False))
        except Torn as torn:
            outcome = "lost torn" if torn.answer else "lost empty"
        except TimeoutError:
            outcome = "lost timeout"
        except OSError as error:
            outcome = f"lost {type(error).__name__}"
        self.new[outcome] += 1
        self.seen[outcome] = time.time()
        self.slowest = max(self.slowest, time.monotonic() - began)

    async def open(self, rate: float) -> None:
        """New connections, until ended; then wait for the last of them."""
        under_way: set[asyncio.Task[None]] = set()
        begin, count = time.monotonic(), 0
        while not self.ended.is_set():
            due = int((time.monotonic() - begin) * rate) - count
            for _ in range(min(due, IN_HAND - len(under_way))):
                task = asyncio.create_task(self.once())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            count += max(due, 0)
            await asyncio.sleep(0.002)
        if under_way:
            await asyncio.wait(under_way)

    async def keep(self) -> None:
        """One client that keeps its connection."""
        request = self.request(keep=True)
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    sock = await self.connect()
            except OSError:
                self.kept["refused"] += 1
                await asyncio.sleep(AGAIN)
                continue
            with sock:
                while not self.ended.is_set() and not self._closed(sock):
                    if not await self._next(sock, request):
                        break
                    await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))

    async def _next(self, sock: socket.socket, request: bytes) -> bool:
        """One request on a kept connection; whether there may be another."""
        try:
            async with asyncio.timeout(PATIENCE):
                outcome, head = await self.ask(sock, request)
        except Torn as torn:
            outcome, head = "lost torn" if torn.answer else "lost unanswered", b""
        except TimeoutError:
            outcome, head = "lost timeout", b""
        except OSError:
            outcome, head = "lost unanswered", b""
        self.kept[outcome] += 1
        return bool(head) and b"connection: close" not in head.lower() and not head.startswith(b"HTTP/1.0")

    @staticmethod
    def _closed(sock: socket.socket) -> bool:
        """Whether the server closed it while nothing was asked."""
        try:
            return not sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def tell(self) -> None:
        """A line."""
        told = {
            "seconds": time.monotonic() - self._began,
            "new": self.new,
            "kept": self.kept,
            "slowest": self.slowest,
            "seen": self.seen,
        }
        print(json.dumps(told), flush=True)


async def main() -> None:
    """Run the clients until the input ends."""
    host, port, rate, kept = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    swarm = Swarm(host, port)
    asyncio.get_running_loop().add_reader(sys.stdin, swarm.ended.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(swarm.open(rate))
        for _ in range(kept):
            group.create_task(swarm.keep())
        while not swarm.ended.is_set():
            swarm.tell()
            await asyncio.sleep(TELL)
        asyncio.get_running_loop().remove_reader(sys.stdin)
    swarm.tell()


if __name__ == "__main__":
    asyncio.run(main())
