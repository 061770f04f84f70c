"""Every point of every kind of deploy: `python -m tests.crash [KIND ...] [--whom agent|tree] [--jobs N]`.

One line a point; what was wrong below it. Ends with the counts, and with 1 if anything was wrong. Several
kinds are tried at once, each with ports and directories of its own.
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from tests.crash.enumerate import deaths
from tests.crash.kinds import KINDS


@dataclass
class Count:
    """How many points a kind had, and after how many something was wrong."""

    kind: str
    whom: str
    points: int = 0
    wrong: int = 0
    seconds: float = 0.0


async def enumerate_from(count: Count, first: int, directory: Path) -> int:
    """The points of one kind from the `first` on; 0 when that were all, else where it can be gone on.

    What the agents said goes beside `directory` when something was wrong.
    """
    async with aclosing(deaths(KINDS[count.kind], directory, count.whom, first=first)) as points:
        async for point in points:
            count.points += point.died
            count.wrong += bool(point.wrong)
            operation = (point.operation or "nobody died").replace(str(directory), "")
            told = [
                f"{count.kind} {count.whom} {point.at} {operation}",
                *(f"    {one}" for one in point.wrong),
            ]
            if point.wrong:
                kept = f"{directory}-{point.at}.log"
                shutil.copy(directory / "box" / "output.log", kept)
                told.append(f"    what was said: {kept}")
            print("\n".join(told), flush=True)
            if any(one.startswith("not reached") for one in point.wrong):  # nothing to go on with
                return int(point.at) + 1
    return 0


def enumerated(kind: str, whom: str, first: int) -> Count:
    """All points of one kind, on one box, or several if one is broken."""
    count, began = Count(kind, whom), time.monotonic()
    while first:
        directory = Path(tempfile.mkdtemp(prefix=f"emptybox-crash-{kind}-{whom}-"))
        try:
            first = asyncio.run(enumerate_from(count, first, directory))
        except Exception:
            count.wrong += 1
            print(f"{kind} {whom} broke off\n{traceback.format_exc()}", flush=True)
            break
        finally:
            shutil.rmtree(directory)
    count.seconds = time.monotonic() - began
    return count


def main() -> int:
    """Enumerate and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("kinds", nargs="*", default=[], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--whom", choices=("agent", "tree"), action="append")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        tried = [
            pool.submit(enumerated, kind, whom, options.first)
            for kind in options.kinds or KINDS
            for whom in options.whom or ("agent", "tree")
        ]
        counts = [each.result() for each in tried]
    for count in counts:
        print(
            f"{count.kind:10}{count.whom:8}{count.points:6} points{count.wrong:6} wrong{count.seconds:8.0f} s"
        )
    points, wrong = sum(count.points for count in counts), sum(count.wrong for count in counts)
    print(f"{'all':18}{points:6} points{wrong:6} wrong")
    return 1 if wrong else 0
