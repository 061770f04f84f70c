"""How late the event loop is: what every other promise about speed rests on."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from agent.kit.turning import Turning
from agent.status.metrics import Metrics

EVERY = 10.0  # seconds between two looks while nothing happens: rare enough to cost nothing
OFTEN = 0.25  # seconds between two looks while something does: that is when it may be late
BUSY = 0.02  # of a core, used by this process since the last look


async def measure_lag(metrics: Metrics) -> NoReturn:
    """Sleep and see how much later than asked for the loop comes back, for ever.

    One that does not come back at all is told by a thread, with its place.
    """
    pause = EVERY
    turning = Turning()
    try:
        while True:
            turning.beat(pause)
            began, used = time.monotonic(), time.process_time()
            await asyncio.sleep(pause)
            took = time.monotonic() - began
            metrics.loop_lag(max(0.0, took - pause))
            pause = OFTEN if time.process_time() - used > BUSY * took else EVERY
    finally:
        turning.close()
