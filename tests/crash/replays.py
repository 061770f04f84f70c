"""Every state a power cut could leave: `python -m tests.crash replay [KIND ...] [--agents N] [--jobs N]`.

One line a state that is not as it should be; ends with the counts, and with 1 if there was one. Not of all
kinds: those that do the same to the disk are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.crash.kinds import KINDS
from tests.crash.replay import replayed

RECORDED = (
    "upgrade", "restart", "crew", "reload", "sick", "files", "shape", "install", "removal", "back", "job",
    "first",
)  # fmt: skip
TOLD = 5  # states with one thing wrong that are told


async def look_at_all(kind: str, agents: int, directory: Path) -> tuple[int, int]:
    """All states of a kind: how many, and how many of them were wrong."""
    looked = wrong = 0
    told: Counter[str] = Counter()
    async for state in replayed(KINDS[kind], directory, lambda cuts, _: cuts, agents):
        looked, wrong = looked + 1, wrong + bool(state.wrong)
        for one in state.wrong:
            told[one] += 1
            if told[one] <= TOLD:
                print(f"{kind} after {state.at}, lost: {state.lost or 'nothing'}: {one}", flush=True)
    return looked, wrong


def looked_at(kind: str, agents: int) -> tuple[str, int, int, float]:
    """The same, in a process of its own; and the seconds it took."""
    directory, began = Path(tempfile.mkdtemp(prefix=f"emptybox-replay-{kind}-")), time.monotonic()
    looked, wrong = 0, 1
    try:
        looked, wrong = asyncio.run(look_at_all(kind, agents, directory))
    except Exception:
        print(f"{kind} broke off\n{traceback.format_exc()}", flush=True)
    finally:
        shutil.rmtree(directory)
    return kind, looked, wrong, time.monotonic() - began


def main(words: Sequence[str]) -> int:
    """Replay and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash replay")
    parser.add_argument("kinds", nargs="*", default=[], metavar="KIND", help=", ".join(RECORDED))
    parser.add_argument("--agents", type=int, default=50, help="agents to start, for each kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(words)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        tried = [pool.submit(looked_at, kind, options.agents) for kind in options.kinds or RECORDED]
        results = [each.result() for each in tried]
    for kind, looked, wrong, seconds in results:
        print(f"{kind:10}{looked:6} states{wrong:6} wrong{seconds:8.0f} s")
    print(f"{'all':10}{sum(r[1] for r in results):6} states{sum(r[2] for r in results):6} wrong")
    return 1 if any(r[2] for r in results) else 0
