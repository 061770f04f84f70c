"""A little of what `make kills` and `make soak` do for long, so that they stay able to."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.endurance import costs
from tests.endurance.kills import Tally, rampage
from tests.endurance.outage import outage
from tests.endurance.soak import Soak, soak

SEED = 20261121
STEADY = ("keeper descriptors", "agent descriptors", "scribe descriptors", "processes", "keeper threads")


async def test_an_agent_dies_at_random_and_no_request_is_lost() -> None:
    tally = Tally()
    async for _ in rampage("agent", 2, SEED, tally):
        pass
    assert (tally.kills, tally.wrong, tally.lost) == (2, [], 0)
    assert tally.requests > 0


async def test_good_bad_and_hostile_commits_leave_nothing_open(tmp_path: Path) -> None:
    async for one in soak(tmp_path, 8, SEED, every=4):
        assert one.wrong == []
        await one.box.until(partial(_as_at_first, one))  # what is open for a moment is not left open


async def test_git_is_away_for_a_while_and_what_was_pushed_meanwhile_comes_without_a_word(
    tmp_path: Path,
) -> None:
    seen = await outage(tmp_path, 1.0, {"--poll": "1s"})
    assert (seen.wrong, seen.lost) == ([], [])
    assert seen.requests > 0


async def _as_at_first(one: Soak) -> bool:
    assert one.box.process is not None
    now = await asyncio.to_thread(costs.sample, one.box.process.pid, one.box.data)
    return all(now[name] <= one.samples[0][name] + costs.SLACK[""] for name in STEADY)
