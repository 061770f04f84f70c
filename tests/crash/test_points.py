"""Somebody dies at a durable operation, of any kind of deploy: nothing of it is to be seen afterwards.

A seeded sample; `make crash` takes every point. What was found that way is named, so that it stays found.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import LimitsSpec
from agent.process.cgroups import Cgroups
from tests.crash.enumerate import deaths
from tests.crash.kinds import KINDS

SEED = 20261121
ROUGHLY = 40  # operations of the shortest deploy; later points of longer ones are left to `make crash`

# What was found: the operation before which an agent has to die, and what was left behind.
FOUND: dict[str, list[str]] = {
    "back": [r"rename .*/\.pair\."],  # the temporary file beside it
    "files": [r"rename .*/\.view\.", r"rename .*/\.proven\."],  # half a view; `good` on the release before
    "twice": [r"flip"],  # a release that serves, and its run told as interrupted
    "reload": [r"rename .*/\.\.config\."],  # half a link, in the directory of a program that lives on
    "turns": ["commit .*rolled-back"],  # a run that was rolled back, told as interrupted
    "guest": [r"asked open guest/", r"asked spawn"],  # an open port, a program that nobody wants
}


def sample(kind: str, whom: str, count: int) -> list[int | str]:
    """Some points of a kind, always the same ones."""
    return [*random.Random(f"{SEED} {kind} {whom}").sample(range(1, ROUGHLY), count)]


async def check(kind: str, directory: Path, whom: str, points: Iterable[int | str]) -> None:
    """Die at these points, one after the other."""
    async with aclosing(deaths(KINDS[kind], directory, whom, points)) as died:
        async for point in died:
            assert point.died, f"nobody came to point {point.at} of {kind}"
            assert point.wrong == [], f"after a death of the {whom} before {point.operation} in {kind}"


@pytest.mark.parametrize("kind", ["upgrade", "restart", "turns", "removal"])
async def test_an_agent_dies_before_some_operation_of_a_deploy(kind: str, tmp_path: Path) -> None:
    await check(kind, tmp_path, "agent", sample(kind, "agent", 1))


@pytest.mark.parametrize("kind", FOUND)
async def test_an_agent_dies_where_something_was_left_behind_once(kind: str, tmp_path: Path) -> None:
    await check(kind, tmp_path, "agent", FOUND[kind])


async def test_no_control_group_stays_of_a_program_that_ended_while_no_agent_was_there(
    tmp_path: Path,
) -> None:
    try:
        Cgroups("probe").make("probe", "probe-1", LimitsSpec(memory=1 << 27, pids=100))
    except OperatorNeeded as error:
        pytest.skip(str(error))
    finally:
        Cgroups("probe").remove("probe", "probe-1")
    await check("limited", tmp_path, "agent", ["asked signal"])


async def test_everything_dies_before_some_operation_of_a_deploy(tmp_path: Path) -> None:
    await check("upgrade", tmp_path, "tree", sample("upgrade", "tree", 1))
