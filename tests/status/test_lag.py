"""The loop's lag is looked for where it may be: while the process works."""

import asyncio
import time

import pytest

from agent.domain.events import Bus
from agent.kit.tasks import Owned
from agent.status import lag
from agent.status.board import AgentInfo, Board
from agent.status.metrics import Metrics


class Listening(Metrics):
    """Remembers what it is told."""

    def __init__(self) -> None:
        bus = Bus()
        info = AgentInfo(version="1", host="h", started=0.0, pid=1, repo="", ref="", path="", data_format=1)
        super().__init__(bus, Board(bus, info))
        self.told: list[float] = []

    def loop_lag(self, seconds: float) -> None:
        super().loop_lag(seconds)
        self.told.append(seconds)


async def test_a_loop_that_is_held_up_is_told_in_the_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Listening()
    monkeypatch.setattr(lag, "EVERY", 0.05)
    async with Owned("lag") as tasks:
        tasks.start(lag.measure_lag(metrics), name="lag")
        await asyncio.sleep(0)
        held = time.monotonic() + 0.3
        while time.monotonic() < held:
            pass
        async with asyncio.timeout(30):
            while len(metrics.told) < 2:  # busy: the next look is soon
                await asyncio.sleep(0.01)
    assert metrics.told[0] >= 0.2
    told = (await metrics.text()).decode()
    worst = next(
        line for line in told.splitlines() if line.startswith("emptybox_event_loop_lag_max_seconds ")
    )
    assert float(worst.split()[1]) >= 0.2
