"""A real smart HTTP Git server with one empty repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.git_server import Forge, Repository


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(tmp_path / "forge") as forge:
        yield forge


@pytest.fixture
async def state(forge: Forge) -> Repository:
    return await forge.repository()


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """URL of a server that takes connections and never says a word."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.transport.abort()
