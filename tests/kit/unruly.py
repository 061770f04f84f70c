"""An artifact server that can be away, refuse, or let its clients wait: to deploy through trouble.

async with Unruly() as server:
    url = server.put("web.tar.gz", data)      # served whole
    server.status = 503                       # every request is answered so
    server.held = True                        # half of each body, then nothing until released
    await server.stop(); await server.start() # away, and back at the same address
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.kit.ports import free_port


class Unruly:
    """Serves bytes from memory. `requests` counts what was asked, `waiting` who waits for a held body."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.requests = 0
        self.waiting = 0
        self._files: dict[str, bytes] = {}
        self._released = asyncio.Event()
        self._released.set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def held(self) -> bool:
        """Whether bodies stop in their middle."""
        return not self._released.is_set()

    @held.setter
    def held(self, value: bool) -> None:
        if value:
            self._released.clear()
        else:
            self._released.set()

    def put(self, name: str, data: bytes) -> str:
        """Serve `data` as `name`; returns its URL."""
        self._files[name] = data
        return f"http://127.0.0.1:{self.port}/{name}"

    async def start(self) -> None:
        """Begin to serve."""
        app = web.Application()
        app.router.add_get("/{name}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Be away; connections under way are cut."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        data = self._files.get(request.match_info["name"])
        if self.status != 200 or data is None:
            return web.Response(status=self.status if self.status != 200 else 404)
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        self.waiting += 1
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1
        await response.write(data[len(data) // 2 :])
        await response.write_eof()
        return response
