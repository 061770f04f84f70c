"""How late the event loop is: what every other promise about speed rests on."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from agent.status.metrics import Metrics

EVERY = 5.0  # seconds between two looks: often enough for a trend, rare enough to cost nothing


async def measure_lag(metrics: Metrics) -> NoReturn:
    """Sleep and see how much later than asked for the loop comes back, for ever."""
    while True:
        due = time.monotonic() + EVERY
        await asyncio.sleep(EVERY)
        metrics.loop_lag(max(0.0, time.monotonic() - due))
