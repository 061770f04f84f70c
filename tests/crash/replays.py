"""Every state a power cut could leave: `python -m tests.crash replay [KIND ...] [--agents N] [--jobs N]`.

One line a state that is not as it should be; ends with the counts, and with 1 if there was one.
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
from dataclasses import dataclass
from pathlib import Path

from tests.crash.kinds import KINDS
from tests.crash.replay import replayed

TOLD = 5  # states with one thing wrong that are told


@dataclass
class Count:
    """States of a kind: how many were looked at, had an agent started on them, were wrong."""

    kind: str
    looked: int = 0
    lived: int = 0
    wrong: int = 0
    seconds: float = 0.0


async def look_at_all(count: Count, agents: int, directory: Path) -> None:
    """All states of a kind."""
    told: Counter[str] = Counter()
    async for state in replayed(KINDS[count.kind], directory, lambda cuts, _: cuts, agents):
        count.looked, count.lived = count.looked + 1, count.lived + state.lived
        count.wrong += bool(state.wrong)
        for one in state.wrong:
            told[one] += 1
            if told[one] <= TOLD:
                where = f"deploy {state.scene}, after {state.at}"
                print(f"{count.kind}, {where}, lost: {state.lost or 'nothing'}: {one}", flush=True)


def looked_at(kind: str, agents: int) -> Count:
    """The same, in a process of its own."""
    directory, began = Path(tempfile.mkdtemp(prefix=f"emptybox-replay-{kind}-")), time.monotonic()
    count = Count(kind)
    try:
        asyncio.run(look_at_all(count, agents, directory))
    except Exception:
        count.wrong += 1
        print(f"{kind} broke off\n{traceback.format_exc()}", flush=True)
    finally:
        shutil.rmtree(directory)
    count.seconds = time.monotonic() - began
    return count


def main(words: Sequence[str]) -> int:
    """Replay and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash replay")
    parser.add_argument("kinds", nargs="*", default=[], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--agents", type=int, default=50, help="agents to start, for each kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(words)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        tried = [pool.submit(looked_at, kind, options.agents) for kind in options.kinds or KINDS]
        results = []
        for each in tried:
            results.append(one := each.result())
            print(f"{one.kind:10}{_told(one)}{one.seconds:8.0f} s", flush=True)
    together = Count(
        "all", *(sum(getattr(one, of) for one in results) for of in ("looked", "lived", "wrong"))
    )
    print(f"{together.kind:10}{_told(together)}")
    return 1 if together.wrong else 0


def _told(count: Count) -> str:
    return f"{count.looked:6} states{count.lived:6} lived in{count.wrong:6} wrong"
