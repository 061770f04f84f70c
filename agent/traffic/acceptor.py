"""Accepts from listeners the agent shares with children, as long as there is room.

asyncio's own servers set their listener non-blocking, call listen on it and shut it down at the end:
three things a shared socket must be spared.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from agent.kit.tasks import Owned
from agent.traffic.slots import accept_waiting

log = logging.getLogger(__name__)
T = TypeVar("T")

AT_ONCE = 4096  # connections in hand; more wait in the kernel's queue
BURST = 64  # connections accepted before others on the loop have their turn
PAUSE = 0.1  # seconds without accepting when descriptors or memory are short
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor(Generic[T]):
    """Hands each connection, with the tag of its listener, to `handle` in a task of its own.

    Args:
        name: of the tasks.
        handle: owns the connection from then on and closes it.
        on_broken: told (once) that a listener does not listen any more; it is not watched from then on.
        at_once: connections in hand at which accepting stops until one is done.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[socket.socket, T], Coroutine[Any, Any, None]],
        on_broken: Callable[[], None] = lambda: None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._handle = handle
        self._on_broken = on_broken
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._tasks = Owned(name)
        self._watched: dict[socket.socket, T] = {}
        self._in_hand = 0
        self._paused = False
        self._resume: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def watch(self, listener: socket.socket, tag: T) -> None:
        """Accept from `listener` from now on. Watching twice is watching once."""
        if listener not in self._watched:
            self._watched[listener] = tag
            if not self._paused:
                self._loop.add_reader(listener, self._ready, listener)

    def unwatch(self, listener: socket.socket) -> None:
        """Accept no more from `listener`; what was accepted stays in hand. Call before closing it."""
        if self._watched.pop(listener, None) is not None:
            self._loop.remove_reader(listener)

    def accept_all(self, listener: socket.socket, tag: T) -> int:
        """Accept what waits at this moment, room or not; returns how many. A shortage ends it early."""
        count = 0
        while self._accept_one(listener, tag):
            count += 1
        return count

    def take(self, connection: socket.socket, tag: T) -> None:
        """Hand over a connection that was accepted elsewhere."""
        self._in_hand += 1
        self._idle.clear()
        task = self._tasks.start(self._handle(connection, tag), name=f"connection {connection.fileno()}")
        # A task that is cancelled before its first step never reaches its own closing.
        task.add_done_callback(lambda _: self._done(connection))

    def _ready(self, listener: socket.socket) -> None:
        for _ in range(BURST):
            if self._in_hand >= self._at_once:
                self._pause(None)
                return
            if not self._accept_one(listener, self._watched[listener]):
                return

    def _accept_one(self, listener: socket.socket, tag: T) -> bool:
        try:
            connection = accept_waiting(listener)
        except OSError as error:
            if error.errno in _SHORTAGE:
                log.warning("no connection can be accepted for the moment: %s", error.strerror)
                self._pause(PAUSE)
            elif listener in self._watched:
                self.unwatch(listener)
                self._on_broken()
            return False
        if connection is None:
            return False
        self.take(connection, tag)
        return True

    def _done(self, connection: socket.socket) -> None:
        connection.close()
        self._in_hand -= 1
        if not self._in_hand:
            self._idle.set()
        if self._paused and self._resume is None and self._in_hand < self._at_once:
            self._go_on()

    def _pause(self, seconds: float | None) -> None:
        if not self._paused:
            self._paused = True
            for listener in self._watched:
                self._loop.remove_reader(listener)
        if seconds is not None and self._resume is None:
            self._resume = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._paused, self._resume = False, None
        for listener in self._watched:
            self._loop.add_reader(listener, self._ready, listener)

    async def aclose(self, grace: float = 0.0) -> None:
        """Accept no more; what is in hand has `grace` seconds to end by itself."""
        for listener in list(self._watched):
            self.unwatch(listener)
        if self._resume is not None:
            self._resume.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        await self._tasks.aclose()
