"""A loop that stands still is told, with its place."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from agent.kit.turning import Turning

DEADLINE = 30.0


def stand_still_until_told(caplog: pytest.LogCaptureFixture) -> None:
    """Block, as a careless call would."""
    end = time.monotonic() + DEADLINE
    while "stood still" not in caplog.text:
        time.sleep(0.01)
        assert time.monotonic() < end


async def test_a_loop_that_stands_still_is_told_with_its_place_and_once_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    turning = Turning(patience=0.05)
    try:
        turning.beat(0.0)
        stand_still_until_told(caplog)
        told = next(r.getMessage() for r in caplog.records if "stood still" in r.getMessage())
        assert "test_turning.py" in told
        assert "stand_still_until_told <- " in told
        turning.beat(600.0)
        turning.beat(0.0)  # an earlier sign of life than was promised wakes the watcher
        async with asyncio.timeout(DEADLINE):
            while caplog.text.count("stood still") < 2:
                await asyncio.sleep(0.01)
        assert "turns again" in caplog.text
    finally:
        turning.close()
