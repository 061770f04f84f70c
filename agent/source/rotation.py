"""Notices that a key or a secret on this host was replaced, and asks for a look at the state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from agent.domain.model import Trigger, TriggerKind
from agent.source.inbox import TriggerInbox

EVERY = 5.0  # seconds between two looks at the files' times
LONGEST = 300.0  # seconds until it is asked for again, when the look did not come to read them


async def watch(outdated: Callable[[], bool], inbox: TriggerInbox) -> NoReturn:
    """Offer a trigger whenever `outdated` becomes true, and rarely again while it stays so."""
    wait = EVERY
    while True:
        await asyncio.sleep(wait)
        if outdated():
            inbox.offer(Trigger(TriggerKind.POLL, detail="a secret or a trusted key was replaced"))
            wait = min(wait * 2, LONGEST)
        else:
            wait = EVERY
