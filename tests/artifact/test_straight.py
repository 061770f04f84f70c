"""Long bodies, which are read past the client library."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from agent.artifact.http import HttpSource
from agent.artifact.limits import DEFAULTS, Limits
from agent.artifact.straight import LONG, Straight
from agent.domain.errors import Transient
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer

DATA = os.urandom(1 << 20) * 20


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Straight]:
    """Every body that was read straight."""
    made: list[Straight] = []
    original = Straight.__init__

    def noted(self: Straight, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type] # whatever they are
        made.append(self)

    monkeypatch.setattr(Straight, "__init__", noted)
    return made


@pytest.fixture
async def source() -> AsyncIterator[HttpSource]:
    """Over http, with little patience."""
    source = HttpSource(Limits(connect=5.0, idle=0.5))
    yield source
    await source.aclose()


async def fetch(source: HttpSource, url: str) -> bytes:
    """All bytes at `url`."""
    parts = []
    async with source.open(url) as body:
        assert body is not None
        while piece := await body.read():
            parts.append(piece)
    return b"".join(parts)


async def test_a_long_body_comes_whole_and_a_short_one_after_it(
    server: ArtifactServer, source: HttpSource, taken: list[Straight]
) -> None:
    assert len(DATA) >= LONG
    long, short = server.put("long", DATA), server.put("short", b"short")
    for _ in range(2):
        assert await fetch(source, long) == DATA
        assert await fetch(source, short) == b"short"
    assert len(taken) == 2


async def test_what_comes_behind_the_end_is_not_taken(taken: list[Straight], source: HttpSource) -> None:
    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        length = len(DATA) if request.path == "/long" else 5
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        writer.write(DATA + b"HTTP/1.1 200 OK\r\n\r\nmore" if request.path == "/long" else b"short")

    async with HostileServer(answer) as server:
        assert await fetch(source, f"{server.url}/long") == DATA
        assert await fetch(source, f"{server.url}/short") == b"short"
        assert len(taken) == 1


async def test_a_long_body_in_chunks_is_left_to_the_library(
    taken: list[Straight], source: HttpSource
) -> None:
    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA))

    async with HostileServer(answer) as server:
        assert await fetch(source, server.url) == DATA
        assert not taken


@pytest.mark.parametrize(("closes", "reason"), [(True, "ArtifactTruncated"), (False, "ArtifactTimeout")])
async def test_a_long_body_that_stops_in_the_middle_is_a_transient_failure(
    closes: bool, reason: str, taken: list[Straight], source: HttpSource
) -> None:
    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA) + DATA[: len(DATA) // 2])
        await writer.drain()
        if closes:
            writer.close()

    async with HostileServer(answer) as server:
        with pytest.raises(Transient) as caught:
            await fetch(source, server.url)
        assert caught.value.reason == reason
        assert len(taken) == 1
        async with asyncio.timeout(30):
            await server.left.wait()


async def test_a_long_body_is_gone_on_with_where_it_broke_off(
    taken: list[Straight], source: HttpSource
) -> None:
    half = len(DATA) // 10

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        head = b'ETag: "one"\r\n'
        if "range" in request.headers:
            start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
            head += b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(DATA) - 1, len(DATA))
            status, part = b"206 Partial Content", DATA[start:]
        else:
            status, part = b"200 OK", DATA
        writer.write(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (status, head, len(part)))
        writer.write(part if "range" in request.headers else part[:half])
        await writer.drain()
        writer.close()

    async with HostileServer(answer) as server:
        assert await fetch(source, server.url) == DATA
        assert len(taken) == len(server.asked) == 2


async def test_a_reader_that_takes_nothing_slows_the_sender_down(taken: list[Straight]) -> None:
    sent = 0

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            writer.write(DATA)
            await writer.drain()
            sent += len(DATA)

    source = HttpSource(DEFAULTS)
    async with HostileServer(answer) as server, source.open(server.url) as body:
        assert body is not None
        assert await body.read()
        before = -1
        while sent != before:  # until nothing more is let in
            before = sent
            await asyncio.sleep(0.5)
        assert await body.read()
        assert sent < 200 << 20  # what the kernel holds for both
    await source.aclose()
    assert len(taken) == 1
