"""Looks at the truth that are due later: after a transient failure, one an app at most."""

from __future__ import annotations

import asyncio

from agent.domain.model import Trigger, TriggerKind
from agent.source.inbox import TriggerInbox

FIRST, LONGEST = 5.0, 300.0  # seconds
HEEDED = 3600.0  # seconds that a server of artifacts may ask for: its limit on requests may be by the hour


def pause(failures: int, asked: float | None = None, heeded: float = LONGEST) -> float:
    """Seconds to the next try after so many `failures` in a row: 5 doubling to 300.

    More where the other side `asked` for that, but no more than `heeded`: it may be back long before, and
    who has pushed since waits.
    """
    return max(min(LONGEST, FIRST * 2.0 ** min(failures - 1, 10)), min(asked or 0.0, heeded))


class Retries:
    """Offers a trigger to the inbox when the time has come; nothing any more after `close`."""

    def __init__(self, inbox: TriggerInbox) -> None:
        self._inbox = inbox
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._closed = False

    def later(self, app: str, seconds: float, reason: str) -> None:
        """Look again in so many seconds; an earlier wish of the same app is forgotten. App "": the state."""
        if self._closed:
            return
        if (waiting := self._waiting.pop(app, None)) is not None:
            waiting.cancel()
        loop = asyncio.get_running_loop()
        self._waiting[app] = loop.call_later(seconds, self._offer, app, reason)

    def close(self) -> None:
        """The agent ends."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()

    def _offer(self, app: str, reason: str) -> None:
        del self._waiting[app]
        self._inbox.offer(Trigger(TriggerKind.RETRY, detail=f"{app}: {reason}" if app else reason))
