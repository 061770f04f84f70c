"""Polling: finds what webhooks missed, and all that is new where there are none.

One look is one request. Its result is a hint like every trigger, so a poll that finds the known commit
offers nothing.

    rest(interval ± 10 %) ──► look ──► known: rest
            ▲                   ├────► new: offer a trigger, rest
            │                   └────► failed: rest(interval × 2, × 4, … at most 5 minutes)
    poke ───┘ ends a rest at once

While webhooks work it rests longer, and shorter when they do not: see `hooks_watch`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.events import Bus, PollScheduled
from agent.domain.model import Trigger, TriggerKind
from agent.source.hooks_watch import Announcements, HooksWatch
from agent.source.inbox import TriggerInbox
from agent.source.reachability import Reachability

log = logging.getLogger(__name__)

JITTER = 0.1  # part of the interval
LONGEST_BACKOFF = 300.0  # seconds
LOOK_DEADLINE = 60.0  # seconds; the look has its own, shorter ones

Rest = Callable[[asyncio.Event, float], Awaitable[None]]


async def rest_until(poked: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await poked.wait()


class Poller:
    """Looks at the followed ref again and again.

    Args:
        look: one request: the commit (hex) the followed ref names now. Raises Failure.
        inbox: where a trigger goes when there is something new.
        bus: hears when the next poll is due, and of missed pushes.
        interval: seconds between two polls.
        known: the newest commit that was resolved, readable or not; None before the first one.
        announced: what webhooks told; None where no webhook is configured.
        reachability: told how each look went; one of its own when None.
        rest: waits for an event, at most so many seconds.
        clock: seconds since the epoch.
        chance: a number in 0..1, for the jitter.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[str]],
        inbox: TriggerInbox,
        bus: Bus,
        interval: float,
        known: Callable[[], str | None],
        announced: Announcements | None = None,
        *,
        reachability: Reachability | None = None,
        rest: Rest = rest_until,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._look = look
        self._inbox = inbox
        self._bus = bus
        self._interval = interval
        self._known = known
        self._hooks = HooksWatch(bus, announced, interval, clock)
        self._reachability = reachability or Reachability(bus, clock)
        self._rest = rest
        self._clock = clock
        self._chance = chance
        self._poked = asyncio.Event()
        self._failures = 0

    def poke(self) -> None:
        """Poll now; when a poll is under way, once more after it."""
        self._poked.set()

    async def run(self) -> NoReturn:
        """Poll for ever. The first time after a random part of the interval: the start itself looks too."""
        delay, reason = self._interval * self._chance(), "the first poll, after a random part of the interval"
        while True:
            self._bus.publish(PollScheduled(self._clock() + delay, reason))
            await self._rest(self._poked, delay)
            self._poked.clear()
            delay, reason = await self._poll()

    async def _poll(self) -> tuple[float, str]:
        """Look once; returns the seconds to the next time and why then."""
        try:
            async with asyncio.timeout(LOOK_DEADLINE):
                commit = await self._look()
        except Failure as error:
            return self._failed(error.info, error.retry_after or 0.0)
        except TimeoutError:
            message = f"the state repository did not answer within {LOOK_DEADLINE:g} s"
            return self._failed(FailureInfo(FailureKind.TRANSIENT, "GitTimeout", message))
        except Exception as error:  # a bug must not end polling, which is the way out of many others
            log.exception("polling failed in a way nobody expected")
            message = f"polling failed unexpectedly: {type(error).__name__}"
            return self._failed(FailureInfo(FailureKind.TRANSIENT, "PollFailed", message))
        self._failures = 0
        self._reachability.reached()
        self._found(commit)
        seconds, reason = self._hooks.rest()
        return self._jittered(seconds), reason

    def _found(self, commit: str) -> None:
        self._hooks.judge()
        known = self._known()
        if commit == known or self._inbox.announces(commit):
            return
        if known is not None:  # what was there before the first look was not missed: nobody listened then
            self._hooks.found(commit)
        self._inbox.offer(Trigger(TriggerKind.POLL, commit, f"polling found {commit[:12]}"))

    def _failed(self, failure: FailureInfo, retry_after: float = 0.0) -> tuple[float, str]:
        self._failures += 1
        self._reachability.failed(failure)
        longest = max(LONGEST_BACKOFF, self._interval)
        delay = self._interval * 2.0 ** min(self._failures, 16)
        delay = min(max(self._jittered(delay), retry_after), longest)
        return delay, f"backing off after {self._failures} failed in a row: {failure.reason}"

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 - JITTER + 2 * JITTER * self._chance())
