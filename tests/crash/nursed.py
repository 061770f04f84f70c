"""The nursery from outside: an asynchronous context, and what is born there as `asyncio` knows processes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.crash import nursery

BORN = 60.0  # seconds


class Nursed:
    """A keeper: as much of `asyncio.subprocess.Process` as a box uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.over = asyncio.Event()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(9)

    async def wait(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        await self.over.wait()
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """One nursery, and all that were born there."""

    def __init__(self) -> None:
        self._born: asyncio.Queue[Nursed] = asyncio.Queue()
        self._children: dict[int, Nursed] = {}

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", str(Path(nursery.__file__)), str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listener = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._process.wait()
        await self._listener

    async def birth(self, fate: Path, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Any:
        """Have a keeper born."""
        order = {"fate": str(fate), "words": words, "log": str(log), "environment": dict(environment)}
        self._writer.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(BORN):
            return await self._born.get()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                told = json.loads(line)
                if "code" not in told:
                    child = self._children[told["pid"]] = Nursed(told["pid"])
                    self._born.put_nowait(child)
                else:
                    child = self._children.pop(told["pid"])
                    child.returncode = told["code"]
                    child.over.set()
        except ConnectionError:
            return
