"""Clients that ask a port again and again, while something happens to it."""

from __future__ import annotations

import asyncio
from typing import Self


class Load:
    """New connections to a port, one after the other in several lanes, each answer counted by its text."""

    def __init__(self, port: int, lanes: int = 4, rest: float = 0.0) -> None:
        """`rest` are seconds between an answer and the next request of a lane."""
        self.port = port
        self._rest = rest
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []
        self._lanes = lanes
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._lane()) for _ in range(self._lanes)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lane(self) -> None:
        while True:
            try:
                answer = await self._ask()
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(repr(error))
                await asyncio.sleep(0.001)
            else:
                self.answers[answer] = self.answers.get(answer, 0) + 1
                await asyncio.sleep(self._rest)

    async def _ask(self) -> str:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                data = await reader.read()
            finally:
                writer.close()
        if not data:
            raise ConnectionResetError("closed without an answer")
        head, _, body = data.partition(b"\r\n\r\n")
        code = head.split(b" ", 2)[1].decode()
        return body.decode().strip() if code == "200" else code

    @property
    def total(self) -> int:
        """All answers."""
        return sum(self.answers.values())
