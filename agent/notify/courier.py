"""Delivers what waits in the outbox: one task a channel, so that one that is down holds up no other.

waiting ──► call ──accepted──► sent
▲          └──failed──► rest(5 s × 2, × 4, … at most 15 minutes, or what Retry-After says)
└─────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from agent.domain.errors import Failure
from agent.domain.events import Bus, ConditionChanged, NoticeTried
from agent.domain.model import Condition, ConditionStatus
from agent.kit.mask import secrets
from agent.notify.letter import Channel, Letter
from agent.notify.outbox import Outbox

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

TYPE = "NoticesDelivered"
DEADLINE = 15.0  # seconds for one call
FIRST_REST, LONGEST_REST = 5.0, 900.0  # seconds
IDLE = 3600.0  # seconds to wait at most for something to do
ANSWER_MAX = 4096  # bytes of an answer that are looked at


class Courier:
    """Delivers letters. `run` is its life.

    Args:
        outbox: where letters wait.
        channels: who takes them.
        bus: hears whether that works.
        first_rest: seconds after the first failure of a letter.
    """

    def __init__(
        self, outbox: Outbox, channels: Sequence[Channel], bus: Bus, first_rest: float = FIRST_REST
    ) -> None:
        self._outbox = outbox
        self._channels = channels
        self._bus = bus
        self._first_rest = first_rest
        self._tries: dict[int, tuple[int, float]] = {}  # letter: failures, time.monotonic() of the next
        self._failing: dict[str, str] = {}  # channel: why
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> NoReturn:
        """Deliver for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for channel in self._channels:
                    group.create_task(self._serve(channel), name=f"notices to {channel.name}")
                await asyncio.Event().wait()
        finally:
            if self._session is not None:
                await self._session.close()
        raise AssertionError("never ends by itself")

    async def flushed(self, deadline: float) -> None:
        """Wait until nothing waits, or until nothing more is to be hoped for, at most `deadline` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while any(letter.id not in self._tries for letter in self._outbox.waiting()):
                    await self._outbox.changed(deadline)

    async def _serve(self, channel: Channel) -> NoReturn:
        while True:
            letter, rest = self._next(channel)
            if letter is None or rest > 0:
                await self._outbox.changed(rest)
                continue
            await self._deliver(channel, letter)

    def _next(self, channel: Channel) -> tuple[Letter | None, float]:
        """The letter that is due first, and in how many seconds."""
        now = time.monotonic()
        due = [
            (self._tries.get(letter.id, (0, now))[1], letter) for letter in self._outbox.heads(channel.name)
        ]
        if not due:
            return None, IDLE
        at, letter = min(due, key=lambda pair: (pair[0], pair[1].id))
        return letter, max(0.0, at - now)

    async def _deliver(self, channel: Channel, letter: Letter) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                why, after = await self._call(channel, letter)
        except Failure as failure:
            why, after = str(failure), 0.0
        except TimeoutError:
            why, after = f"no answer within {DEADLINE:g} s", 0.0
        except Exception as error:  # whatever it is: it must not end the courier
            log.debug("notice to %s", channel.name, exc_info=error)
            why, after = secrets.text(f"{type(error).__name__}: {error}")[:300], 0.0
        if not why:
            self._tries.pop(letter.id, None)
            self._outbox.sent(letter)
        else:
            failures = self._tries.get(letter.id, (0, 0.0))[0] + 1
            rest = min(max(self._first_rest * 2.0 ** min(failures - 1, 12), after), LONGEST_REST)
            self._tries[letter.id] = failures, time.monotonic() + rest
        waiting = {other.id for other in self._outbox.waiting()}
        self._tries = {number: tried for number, tried in self._tries.items() if number in waiting}
        self._tell(channel, why, len(self._outbox.waiting(channel.name)))

    async def _call(self, channel: Channel, letter: Letter) -> tuple[str, float]:
        """Why a letter was not accepted ("" when it was), and seconds the other side asks to wait."""
        import aiohttp

        call = await asyncio.to_thread(channel.call, letter)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8, force_close=True), trust_env=True
            )
        headers = {"User-Agent": "emptybox", **call.headers}
        request = self._session.post(call.url, json=call.content, headers=headers, allow_redirects=False)
        async with request as response:
            answer = (await response.content.read(ANSWER_MAX)).decode(errors="replace")
            if channel.accepted(response.status, answer):
                return "", 0.0
            after = response.headers.get("Retry-After", "")
            return f"HTTP {response.status}", float(after) if after.isascii() and after.isdigit() else 0.0

    def _tell(self, channel: Channel, why: str, waiting: int) -> None:
        self._bus.publish(NoticeTried(channel.name, not why, waiting))
        before = dict(self._failing)
        if why:
            self._failing[channel.name] = why
        else:
            self._failing.pop(channel.name, None)
        if self._failing == before:
            return
        told = "; ".join(f"{name}: {reason}" for name, reason in self._failing.items())
        status = ConditionStatus.FALSE if told else ConditionStatus.TRUE
        reason = "NoticeFailed" if told else "Delivered"
        self._bus.publish(ConditionChanged("", Condition(TYPE, status, reason, told, time.time())))
