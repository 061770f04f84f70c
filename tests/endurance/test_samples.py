"""A little of what `make kills` and `make soak` do for long, so that they stay able to."""

from __future__ import annotations

from pathlib import Path

from tests.endurance import costs
from tests.endurance.kills import Tally, rampage
from tests.endurance.soak import soak

SEED = 20261121
STEADY = ("keeper descriptors", "agent descriptors", "scribe descriptors", "processes", "keeper threads")


async def test_an_agent_dies_at_random_and_no_request_is_lost() -> None:
    tally = Tally()
    async for _ in rampage("agent", 2, SEED, tally):
        pass
    assert (tally.kills, tally.wrong, tally.lost) == (2, [], 0)
    assert tally.requests > 0


async def test_good_bad_and_hostile_commits_leave_nothing_open(tmp_path: Path) -> None:
    *_, one = [one async for one in soak(tmp_path, 8, SEED, every=4)]
    assert one.wrong == []
    first, last = one.samples
    assert {name: last[name] for name in STEADY if last[name] > first[name] + costs.SLACK[""]} == {}
