"""A job every second, an agent killed at random: no run lost silently, none doubled, history true.

A short sample; `make jobs` takes five minutes, and as many again in which the keeper is killed, too.
JOBS_SEED draws other instants.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.system.test_jobs import EVERY_SECOND, gone, ready, runs, state

SECONDS = float(os.environ.get("JOBS_SECONDS", "4"))
SEED = int(os.environ.get("JOBS_SEED", "3"))
PAUSES = (0.0, 2.0)  # seconds between two killings, about


async def rehearse(box: Box, seconds: float, dice: random.Random, keeper: float) -> Path:
    """Kill the agent, or with a chance of `keeper` all of it; returns the file that the runs wrote."""
    written = box.directory / "written"
    line = f'echo "$EMPTYBOX_RUN $EMPTYBOX_DUE $1" >> {written}'
    script = f"say() {{ {line}; }}; say begun; sleep 0.$(($$ % 9)); say ended"
    await box.commit(state(script, schedule=EVERY_SECOND))
    await box.start()
    await ready(box)
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(dice.uniform(*PAUSES))
        if dice.random() < keeper:
            old = await box.agent_pid()
            await box.stop(signal.SIGKILL)
            await gone(old)
            await asyncio.sleep(dice.uniform(0, 1))
            await box.start()
        else:
            os.kill(await box.agent_pid(), signal.SIGKILL)
            await box.until(box.answers)
    await box.stop()
    return written


def seconds_of(text: str) -> int:
    """A due time as seconds since the epoch."""
    return round(datetime.fromisoformat(text).timestamp())


def check(rows: list[dict[str, Any]], lines: list[str], *, only_agents: bool) -> Counter[str]:
    """Every second has one row, every run began once, and ended as its row says."""
    times: list[int] = []
    for row in rows:
        first, last = seconds_of(row["due"]), seconds_of(row["until"] or row["due"])
        assert last - first + 1 == row["count"], row
        times += range(first, last + 1)
    assert sorted(times) == list(range(min(times), max(times) + 1))
    begun = Counter(line.split()[0] for line in lines if line.endswith("begun"))
    ended = {line.split()[0] for line in lines if line.endswith("ended")}
    assert all(count == 1 for count in begun.values()), begun
    results = {row["id"]: row["result"] for row in rows}
    assert set(begun) <= set(results)
    for run, result in results.items():
        if result in ("missed", "skipped"):
            assert run not in begun
        elif result == "succeeded":
            assert (begun[run], run in ended) == (1, True)
        else:
            assert result in (("stopped",) if only_agents else ("stopped", "interrupted")), result
            assert run not in ended or result == "interrupted"
    return Counter(results.values())


@pytest.mark.timeout(SECONDS + 115)
@pytest.mark.parametrize("keeper", [0.0, 0.5] if SECONDS > 60 else [0.0])
async def test_no_run_is_lost_silently_and_none_is_doubled_over_kills_at_random(
    box: Box, keeper: float
) -> None:
    written = await rehearse(box, SECONDS, random.Random(SEED), keeper)
    await box.commit(state("true", version="2.0"))
    await box.start()
    await ready(box, "2.0")
    rows = [row for row in await runs(box) if row["cause"] == "schedule"]
    counted = check(rows, written.read_text().splitlines(), only_agents=not keeper)
    print(f"{SECONDS:g} s, seed {SEED}, {'keeper' if keeper else 'agent'}: {dict(counted)}")
    assert counted["succeeded"] >= 2
