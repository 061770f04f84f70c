"""A file server on loopback that stands in for wherever a user's builds are published."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

SUMS = "SHA256SUMS"


@asynccontextmanager
async def artifact_server(directory: Path, files: Mapping[str, bytes]) -> AsyncIterator[str]:
    """Serve the files and their checksums, as sha256sum(1) lists them, from `directory`; gives the URL."""
    await asyncio.to_thread(_write, directory, files)
    application = web.Application()
    application.router.add_static("/", directory)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    (directory / SUMS).write_text(sums)
