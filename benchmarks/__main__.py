"""`python -m benchmarks [NAME ...] [--json]`: measure, and print a small table each."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import sys

from benchmarks.report import Report, machine

NAMES = (
    "push_to_live",
    "idle",
    "apps",
    "rogues",
    "webhooks",
    "rollback",
    "throughput",
    "flood",
    "artifacts",
    "containers",
)


def main() -> None:
    """Run what is asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, help="rounds of push_to_live, rollback and artifacts")
    parser.add_argument("--size", type=int, help="MiB of artifacts (1024)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(unknown)}")
    told: dict[str, object] = {"machine": machine()}
    for name in given.names or NAMES:
        print(f"measuring {name} ...", file=sys.stderr)
        measure = importlib.import_module(f"benchmarks.{name}").run
        options = {"rounds": given.rounds, "size": given.size}
        taken = inspect.signature(measure).parameters
        arguments = {option: value for option, value in options.items() if value and option in taken}
        report: Report = asyncio.run(measure(**arguments))
        told[name] = report.data
        if not given.json:
            print(report.text() + "\n", flush=True)
    if given.json:
        print(json.dumps(told, indent=2))
    else:
        print(", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
