"""Every point of every kind of deploy: `python -m tests.crash [KIND ...] [--whom agent|tree] [--first N]`.

One line a point; what was wrong below it. Ends with the counts, and with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.enumerate import deaths
from tests.crash.kinds import KINDS


async def enumerate_all(kind: str, whom: str, first: int) -> tuple[int, int]:
    """All points of one kind: how many there were, and after how many something was wrong."""
    directory = Path(tempfile.mkdtemp(prefix="emptybox-crash-"))
    points = wrong = 0
    try:
        async for point in deaths(KINDS[kind], directory, whom, first=first):
            points += point.died
            wrong += bool(point.wrong)
            print(kind, whom, point.at, point.operation or "nobody died", flush=True)
            for one in point.wrong:
                print(f"    {one}", flush=True)
    finally:
        shutil.rmtree(directory)
    return points, wrong


def main() -> int:
    """Enumerate and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("kinds", nargs="*", default=[], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--whom", choices=("agent", "tree"), action="append")
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    told, bad = [], 0
    for whom in options.whom or ("agent", "tree"):
        for kind in options.kinds or KINDS:
            began = time.monotonic()
            points, wrong = asyncio.run(enumerate_all(kind, whom, options.first))
            bad += wrong
            seconds = time.monotonic() - began
            told.append(f"{kind:10}{whom:8}{points:6} points{wrong:6} wrong{seconds:8.0f} s")
    print("\n".join(told))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
