"""A short sample of `make swaps`: two real servers, five swaps each under load, nothing lost.

Which two, and in which socket mode, is drawn from those this machine has; SWAPS_SEED draws others.
"""

from __future__ import annotations

import os
import random

import pytest

from benchmarks.programs import PROGRAMS, Program
from benchmarks.swaps import CHANCE, Lost, surplus, swap_with_agent

SEED = int(os.environ.get("SWAPS_SEED", "2"))
MODES = ("fd", "adopt")


def sample() -> list[tuple[Program, str]]:
    """Two programs that are to be had here, each in one mode."""
    dice = random.Random(SEED)
    here = [program for program in PROGRAMS.values() if not program.missing()]
    able = [(p, [mode for mode in p.modes() if mode in MODES]) for p in here]
    return [(p, dice.choice(modes)) for p, modes in dice.sample([pair for pair in able if pair[1]], 2)]


@pytest.mark.parametrize(("program", "mode"), sample(), ids=lambda value: getattr(value, "name", value))
async def test_a_real_server_is_swapped_under_load_and_no_new_connection_is_lost(
    program: Program, mode: str
) -> None:
    outcome = await swap_with_agent(program, mode, swaps=5, rate=500, kept=4)
    assert outcome.trouble == ""
    assert outcome.swaps.times == 5
    assert outcome.swaps.new_lost == {}
    assert outcome.swaps.new >= 6 * 20


@pytest.mark.parametrize(
    ("ours", "swaps", "by_hand", "stops", "worse"),
    [
        (0, 100, 0, 40, False),
        (11, 20, 5, 20, False),
        (40, 100, 16, 40, False),
        (80, 100, 0, 40, True),
        (4000, 100, 800, 40, True),
        (16, 20, 0, 0, False),
    ],
)
def test_more_is_lost_of_kept_connections_than_by_hand_only_beyond_chance(
    ours: int, swaps: int, by_hand: int, stops: int, worse: bool
) -> None:
    lost = {"lost unanswered": ours}, {"lost unanswered": by_hand}
    chance = surplus(Lost(times=swaps, kept_lost=lost[0]), Lost(times=stops, kept_lost=lost[1]))
    assert (chance < CHANCE) == worse
