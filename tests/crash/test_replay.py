"""Power cuts in a deploy, from a record of all it did to the disk: a seeded sample of `make replay`."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.crash.disk import Change
from tests.crash.kinds import KINDS
from tests.crash.replay import Cut, replayed

SEED = 20261122
LOOKS, AGENTS, AGAIN = 30, 1, 1
# What was found: a change that was lost although something later told of it, or took more away.
FOUND = {"upgrade": (r"\d\.db-journal", r"rename \w+-\w+ to \w+-\d+$")}
KINDS_TRIED = ["upgrade", *random.Random(SEED).sample(sorted({*KINDS} - {"upgrade"}), 1)]


def need_strace() -> None:
    """Skip where programs cannot be listened to; without the program, fail in CI."""
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have strace")
        pytest.skip("strace is missing")
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"nobody may be traced here: {tried.stderr.decode().strip()}")


@pytest.mark.parametrize("kind", KINDS_TRIED)
async def test_a_power_cut_leaves_a_whole_release_a_true_history_and_the_way_on(
    kind: str, tmp_path: Path
) -> None:
    need_strace()

    def some(cuts: list[Cut], changes: list[Change]) -> Sequence[Cut]:
        dice = random.Random(f"{SEED} {kind}")
        named = []
        for pattern in FOUND.get(kind, ()):
            assert any(re.search(pattern, change.what) for change in changes), pattern
            found = [cut for cut in cuts if cut.lost >= 0 and re.search(pattern, changes[cut.lost].what)]
            named += found[:5]  # none while it is synced at once
        return [*dice.sample(cuts, min(LOOKS, len(cuts))), *named]

    lived = 0
    async with aclosing(replayed(KINDS[kind], tmp_path, some, AGENTS, AGAIN)) as states:
        async for state in states:
            lived += state.lived
            where = f"deploy {state.scene}, after {state.at} changes, {state.lost or 'nothing'} being lost"
            assert state.wrong == [], where
    assert lived >= 1
