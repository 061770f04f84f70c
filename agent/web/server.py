"""The face: three doors (admin listener, Unix socket, webhook listener) to the same handlers.

GET  /             overview           GET  /healthz /readyz /metrics
GET  /status       the whole picture  GET  /maintenance
GET  /events       as they happen     GET  /history
GET  /plan /logs   POST /sync /rollback /retry /pause /resume /upgrade   by the socket, or with the token
GET  /jobs         POST /job/run /job/stop                               likewise
                   POST /exec                                            likewise
GET  /store        POST /store/verify /store/gc                          likewise
POST /webhook      the only one on the webhook listener
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from agent.config import Address, Settings
from agent.domain.control import Control
from agent.domain.errors import OperatorNeeded
from agent.kit.tasks import Owned
from agent.status.board import Board
from agent.status.metrics import Metrics
from agent.web import control as wishes
from agent.web import events, execs, health, jobs, maintenance, records, said, status, store
from agent.web.context import CONTEXT, DOOR, Context, Door
from agent.web.listeners import (
    KEEPALIVE,
    LINGER,
    OF_THE_DISK,
    WEBHOOK_KEEPALIVE,
    UnixListener,
    bound,
    listen_tcp,
)
from agent.web.problem import problems, secure

log = logging.getLogger(__name__)

GRACE = 2.0  # seconds that answers under way are given at the end
END_DEADLINE = 8.0  # seconds for the whole end
BODY_MAX = 4 << 20  # bytes aiohttp itself reads at most; each handler has a tighter bound of its own

WebhookHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the face can be reached."""

    admin: Address
    socket: Path
    webhook: Address | None


class Face:
    """The agent's HTTP face. An asynchronous context manager; inside it, it listens.

    Args:
        settings: `admin`, `webhook`, `socket` and `control_token_file` are used.
        board: what is told.
        metrics: what is scraped.
        control: who carries out wishes.
        webhook_handler: answers POST /webhook; None: there is no such route.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        metrics: Metrics,
        control: Control,
        webhook_handler: WebhookHandler | None = None,
    ) -> None:
        self._settings = settings
        self._webhook_handler = webhook_handler
        self._tasks = Owned("wishes", _not_granted)
        self._context = Context(settings, board, metrics, control, self._tasks)
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._socket = UnixListener(settings.socket)
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Where it really listens. Only once it does."""
        if self._addresses is None:
            raise RuntimeError("the face does not listen yet")
        return self._addresses

    def shutting_down(self) -> None:
        """From now on /readyz answers 503; everything else goes on."""
        self._context.shutting_down = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, bear: Callable[[OperatorNeeded], None] | None = None) -> None:
        """Open all listeners. Raises OperatorNeeded(PortTaken | AddressUnavailable | SocketUnusable).

        `bear` hears of a Unix socket that the disk cannot hold (DiskFull, DiskReadOnly), and may raise.
        """
        settings = self._settings
        try:
            try:
                await self._socket.start(await self._runner(Door.SOCKET))
            except OperatorNeeded as error:
                if bear is None or error.reason not in OF_THE_DISK:
                    raise
                bear(error)
            admin = await listen_tcp(await self._runner(Door.ADMIN), settings.admin)
            self._servers.append(admin)
            webhook = None
            if settings.webhook is not None:
                webhook = await listen_tcp(await self._runner(Door.WEBHOOK), settings.webhook)
                self._servers.append(webhook)
        except BaseException:
            await self.aclose()
            raise
        at = bound(webhook) if webhook is not None else None
        self._addresses = Addresses(bound(admin), settings.socket, at)

    async def aclose(self) -> None:
        """Stop listening, end event streams, give answers under way a moment, and close."""
        self._socket.close()
        for server in self._servers:
            server.close()
        self._context.closing = True
        self._context.board.feed.close()
        runners, self._runners, self._servers = self._runners, [], []
        try:
            async with asyncio.timeout(END_DEADLINE):
                await asyncio.gather(*(runner.cleanup() for runner in runners))
        except TimeoutError:
            log.warning("connections were still open after %g s", END_DEADLINE)
        await self._tasks.aclose()

    async def _runner(self, door: Door) -> web.AppRunner:
        application = web.Application(middlewares=[problems], client_max_size=BODY_MAX)
        application[CONTEXT] = self._context
        application[DOOR] = door
        application.on_response_prepare.append(secure)
        if door is not Door.WEBHOOK:
            _add_routes(application.router)
        if self._webhook_handler is not None:
            application.router.add_post("/webhook", self._webhook_handler)
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # nobody waits for a client that is gone
            keepalive_timeout=KEEPALIVE if door is not Door.WEBHOOK else WEBHOOK_KEEPALIVE,
            lingering_time=LINGER,
            shutdown_timeout=GRACE,
        )
        await runner.setup()
        self._runners.append(runner)
        return runner


def _not_granted(error: BaseException) -> None:
    """Whoever asked is told, unless they are gone by then."""
    log.info("a wish was not granted: %s", error)


def _add_routes(router: web.UrlDispatcher) -> None:
    for path, read in (
        ("/status", status.status),
        ("/history", records.history),
        ("/plan", records.plan),
        ("/ps", records.processes),
        ("/jobs", jobs.runs),
        ("/doctor", records.doctor),
        ("/logs", said.logs),
        ("/store", store.stored),
    ):
        for ending in ("", ".json", ".txt"):
            router.add_get(path + ending, read)
    for path, read in (
        ("/", status.overview),
        ("/metrics", health.metrics),
        ("/maintenance", maintenance.maintenance),
        ("/healthz", health.healthz),
        ("/readyz", health.readyz),
    ):
        router.add_get(path, read)
    router.add_get("/events", events.events, allow_head=False)
    for path, wish in (
        ("/sync", wishes.sync),
        ("/rollback", wishes.rollback),
        ("/retry", wishes.retry),
        ("/promote", wishes.promote),
        ("/abort", wishes.abort),
        ("/pause", wishes.pause),
        ("/resume", wishes.resume),
        ("/upgrade", wishes.upgrade),
        ("/store/verify", store.verify),
        ("/store/gc", store.gc),
        ("/job/run", jobs.run),
        ("/job/stop", jobs.stop),
        ("/exec", execs.run),
    ):
        router.add_post(path, wish)
