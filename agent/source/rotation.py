"""Notices that a key or a secret on this host was replaced, and asks for a look at the state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from agent.domain.model import Trigger, TriggerKind
from agent.source.inbox import TriggerInbox

EVERY = 5.0  # seconds between two looks at the files
LONGEST = 300.0  # seconds until it is asked for again, when the look did not come to read them


async def watch(replaced: Callable[[], Awaitable[str]], inbox: TriggerInbox) -> NoReturn:
    """Offer a trigger whenever `replaced` names something, and rarely again while it goes on to."""
    wait = EVERY
    while True:
        await asyncio.sleep(wait)
        if told := await replaced():
            inbox.offer(Trigger(TriggerKind.POLL, detail=told))
            wait = min(wait * 2, LONGEST)
        else:
            wait = EVERY
