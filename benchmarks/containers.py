"""Starts in containers (`driver: oci`) against `runc run` of the same bundle by hand, in turns.

The program says what the monotonic clock shows when it runs, so that nobody's way of hearing it counts.
Ours goes from the order to the agent's code until then: bundle, keeper, namespaces, overlayfs, runtime. By
hand the bundle lies there with its root mounted, and the clock runs from the fork of the runtime.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.keeper.confine import system
from agent.process.bounds import Bounds
from agent.process.context import ChildContext
from agent.process.oci.container import DIRECTORY, Container, Host
from agent.process.users import User
from benchmarks.report import Report, ms, spread
from tests.kit.keepers import Agent, keeper

GOAL = 1.2
APP = "benchmark"
PROGRAM = """
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld.%09ld\\n", (long long)now.tv_sec, now.tv_nsec);
    return 0;
}
"""


async def run(rounds: int = 60) -> Report:
    """Measure. It takes root, gcc and runc."""
    runtime = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert runtime is not None, "runc is not installed"
    # no tmpfs, so that what lies below is on a disk as a data directory is
    with tempfile.TemporaryDirectory(prefix="emptybox-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        release = directory / "release"
        release.mkdir()
        _compile(release / "program", directory)
        container = Container(Host(), APP, release)
        instance = directory / "instance"
        instance.mkdir()
        context = ChildContext(
            APP, instance, {"PATH": os.defpath}, User("root"),
            bounds=Bounds(tier="standard"), container=container,
        )  # fmt: skip
        ours, hand, whole = [], [], []
        async with keeper() as kept:
            agent = await kept.agent()
            with _by_hand(context, directory, release) as bundle:
                for number in range(rounds + 3):
                    mine = await _ours(context, agent, f"{APP}-{number}")
                    until, end = await asyncio.to_thread(_hand, runtime, bundle)
                    if number >= 3:
                        ours.append(mine)
                        hand.append(until)
                        whole.append(end)
    return _report(ours, hand, whole)


def _compile(path: Path, scratch: Path) -> None:
    source = scratch / "program.c"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O2", "-static", "-o", path, source], check=True, timeout=60)


async def _ours(context: ChildContext, agent: Agent, child: str) -> float:
    """Seconds from the order until the program runs."""
    began = time.monotonic()
    await context.spawn(agent.client, child, ["/program"])
    await agent.client.wait(child)
    (line,) = await agent.client.tail(child)
    await context.limit_hit(child)
    await agent.client.forget(child)
    return float(line) - began


@contextmanager
def _by_hand(context: ChildContext, directory: Path, release: Path) -> Iterator[Path]:
    """A bundle as ours are, with its root mounted, and a PID namespace by the runtime."""
    assert context.container is not None
    request = context.request("hand", ["/program"])
    bundle = directory / "hand"
    context.container._furnish(request, context.bounds)
    shutil.copytree(context.directory / DIRECTORY / "hand", bundle, symlinks=True)
    document = json.loads((bundle / "config.json").read_text())
    document["linux"]["namespaces"].append({"type": "pid"})
    (bundle / "config.json").write_text(json.dumps(document))
    options = f"lowerdir={release},upperdir={bundle}/upper,workdir={bundle}/work"
    system.mount("overlay", str(bundle / "root"), "overlay", 0, options)
    try:
        yield bundle
    finally:
        subprocess.run(["umount", bundle / "root"], check=True, timeout=60)


def _hand(runtime: str, bundle: Path) -> tuple[float, float]:
    """Seconds until the program runs, and until the runtime has ended. Blocks."""
    began = time.monotonic()
    done = subprocess.run(
        [runtime, "--root", bundle / "state", "run", "--bundle", bundle, f"hand-{os.getpid()}"],
        check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return float(done.stdout) - began, time.monotonic() - began


def _report(ours: list[float], hand: list[float], whole: list[float]) -> Report:
    told = {"ours": spread(ours), "by_hand": spread(hand), "by_hand_to_its_end": spread(whole)}
    ratio = told["ours"]["median"] / told["by_hand"]["median"]
    pairs = statistics.median(mine / theirs for mine, theirs in zip(ours, hand, strict=True))
    report = Report(f"Start in a container, {len(ours)} rounds in turns: until the program runs")
    for name, what in (
        ("ours", "driver: oci"),
        ("by_hand", "runc run"),
        ("by_hand_to_its_end", "to its end"),
    ):
        values = told[name]
        report.row(what, ms(values["median"]), f"quartiles {ms(values['low'])}, {ms(values['high'])}")
    report.row("ratio", f"{ratio:.2f}", f"median of the pairs {pairs:.2f}; goal: at most {GOAL:g}")
    report.data = {**told, "ratio": ratio, "ratio_of_pairs": pairs, "goal": GOAL, "reached": ratio <= GOAL}
    return report
