"""A load of new connections from a process of its own: one HTTP request each, every outcome counted.

An outcome is the first word of the answer's body (the name of the server that answered), or `status 503`
for an answer other than 200, or `failed ...` with the error's name. Whoever waits for progress waits for
counts, never for a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WORKERS = 4
DEADLINE = 20.0

CLIENT = """
import collections, json, socket, sys, threading, time
host, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ended = threading.Event()
lock, counts = threading.Lock(), collections.Counter()

def once():
    try:
        with socket.create_connection((host, port), timeout=10) as s:
            s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            answer = b""
            while data := s.recv(4096):
                answer += data
    except OSError as error:
        return "failed " + type(error).__name__
    head, end, body = answer.partition(b"\\r\\n\\r\\n")
    if not end:
        return "failed empty" if not answer else "failed torn"
    if head.split(b" ")[1] != b"200":
        return "status " + head.split(b" ")[1].decode()
    return body.split()[0].decode() if body.strip() else "failed torn"

def work():
    while not ended.is_set():
        outcome = once()
        with lock:
            counts[outcome] += 1

threads = [threading.Thread(target=work) for _ in range(workers)]
for thread in threads: thread.start()
def tell():
    with lock:
        print(json.dumps(counts), flush=True)
def talk():
    while not ended.wait(0.02): tell()
threading.Thread(target=talk).start()
sys.stdin.read()
ended.set()
for thread in threads: thread.join()
tell()
"""


class Load:
    """The counts so far, and `stop` for the last ones."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.counts: Counter[str] = Counter()
        self._process = process
        self._changed = asyncio.Event()

    @property
    def failures(self) -> dict[str, int]:
        """Everything that no server answered with 200."""
        return {k: v for k, v in self.counts.items() if k.startswith(("failed", "status"))}

    async def answered(self, name: str, count: int) -> None:
        """Wait until `name` has answered `count` requests in all."""
        async with asyncio.timeout(DEADLINE):
            while self.counts[name] < count:
                self._changed.clear()
                await self._changed.wait()

    async def stop(self) -> None:
        """End the load; afterwards the counts are final."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(DEADLINE):
            await self._process.wait()
            while not self._process.stdout or not self._process.stdout.at_eof():
                await asyncio.sleep(0)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.counts = Counter(json.loads(line))
            self._changed.set()


@asynccontextmanager
async def load(host: str, port: int, workers: int = WORKERS) -> AsyncIterator[Load]:
    """Open connections to a port as fast as `workers` clients can, until left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-E", "-c", CLIENT, host, str(port), str(workers),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = Load(process)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(running._read())
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reader
