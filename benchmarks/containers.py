"""Starts in containers (`driver: oci`) against `runc run` of the same bundle by hand, in turns; and twenty.

The program says what the monotonic clock shows when it runs, so that nobody's way of hearing it counts.
Ours goes from the order to the agent's code until then: bundle, keeper, namespaces, overlayfs, runtime. By
hand the bundle lies there with its root mounted, and the clock runs from the fork of the runtime. Without
limits ours makes no control groups; by hand runc always makes some.
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
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.domain.spec import LimitsSpec
from agent.keeper.confine import system
from agent.process.bounds import Bounds
from agent.process.cgroups import Cgroups
from agent.process.context import ChildContext
from agent.process.oci.container import DIRECTORY, Container, Host
from agent.process.users import User
from benchmarks import proc
from benchmarks.report import Report, ms, spread
from tests.kit.keepers import Agent, keeper

GOAL = 1.2
WARM = 3  # rounds that do not count
INSTANCES = 20
RELEASE = 50 << 20  # bytes
APP = "benchmark"
PROGRAM = """
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld.%09ld\\n", (long long)now.tv_sec, now.tv_nsec);
    fflush(stdout);
    return count > 1 ? pause() : 0;
}
"""
LIMITS = {"without limits": LimitsSpec(), "with a limit of memory": LimitsSpec(memory=256 << 20)}


@dataclass(slots=True)
class Times:
    """Seconds until the program ran: of ours, by hand, and of `runc run` by hand until it had ended."""

    ours: list[float] = field(default_factory=list)
    hand: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


async def run(rounds: int = 60) -> Report:
    """Measure. It takes root, gcc and runc, and /var/tmp on a disk on which overlayfs can be."""
    runtime = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert runtime is not None, "runc is not installed"
    with tempfile.TemporaryDirectory(prefix="emptybox-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        release = directory / "release"
        release.mkdir()
        _compile(release / "program", directory)
        (release / "large").write_bytes(os.urandom(RELEASE))
        container = Container(Host(), APP, release)
        cgroups = Cgroups("bench", device=directory)
        plain = ChildContext(
            APP, directory / "instance", {"PATH": os.defpath}, User("root"),
            bounds=Bounds(tier="standard", cgroups=cgroups), container=container,
        )  # fmt: skip
        report = Report(f"Start in a container, {rounds} rounds in turns: until the program runs")
        async with keeper() as kept:
            agent = await kept.agent()
            for what, limits in LIMITS.items():
                context = replace(plain, bounds=replace(plain.bounds, limits=limits))
                _tell(report, what, await _turns(context, agent, runtime, directory, rounds))
            _tell_many(report, *await _many(plain, agent, directory / "instances"))
    report.data["goal"] = GOAL
    return report


async def _turns(context: ChildContext, agent: Agent, runtime: str, directory: Path, rounds: int) -> Times:
    """Ours and by hand in turns."""
    times = Times()
    with _by_hand(context, directory) as bundle:
        for number in range(rounds + WARM):
            mine = await _ours(context, agent, f"{APP}-{number}")
            until, end = await asyncio.to_thread(_hand, runtime, bundle)
            if number >= WARM:
                times.ours.append(mine)
                times.hand.append(until)
                times.whole.append(end)
    return times


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
def _by_hand(context: ChildContext, directory: Path) -> Iterator[Path]:
    """A bundle as ours are, with its root mounted, and a PID namespace by the runtime."""
    container = context.container
    assert container is not None
    place, bundle = context.directory / DIRECTORY / "hand", directory / "hand"
    container._furnish(context.request("hand", ["/program"]), context.bounds)  # the very same document
    shutil.copytree(place, bundle, symlinks=True)
    shutil.rmtree(place)
    document = json.loads((bundle / "config.json").read_text())
    document["linux"]["namespaces"].append({"type": "pid"})
    (bundle / "config.json").write_text(json.dumps(document))
    options = f"lowerdir={container.release},upperdir={bundle}/upper,workdir={bundle}/work"
    system.mount("overlay", str(bundle / "root"), "overlay", 0, options)
    try:
        yield bundle
    finally:
        subprocess.run(["umount", bundle / "root"], check=True, timeout=60)
        shutil.rmtree(bundle)


def _hand(runtime: str, bundle: Path) -> tuple[float, float]:
    """Seconds until the program runs, and until the runtime has ended. Blocks."""
    began = time.monotonic()
    done = subprocess.run(
        [runtime, "--root", bundle / "state", "run", "--bundle", bundle, f"hand-{os.getpid()}"],
        check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return float(done.stdout) - began, time.monotonic() - began


async def _many(context: ChildContext, agent: Agent, directory: Path) -> tuple[int, float]:
    """Bytes on disk of all instances beside the release, and MiB of memory of one's init."""
    pids = []
    for number in range(INSTANCES):
        instance = replace(context, directory=directory / str(number))
        pids.append((await instance.spawn(agent.client, f"{APP}-{number}", ["/program", "stay"])).pid)
    sizes = [path.lstat().st_blocks * 512 for path in directory.rglob("*")]
    memory = [proc.pss(pid) for pid in pids]
    for number in range(INSTANCES):
        await agent.client.signal(f"{APP}-{number}", 9)
        await agent.client.wait(f"{APP}-{number}")
    return sum(sizes), statistics.mean(memory)


def _tell(report: Report, what: str, times: Times) -> None:
    told = {
        "ours": spread(times.ours),
        "by hand": spread(times.hand),
        "by hand, its end": spread(times.whole),
    }
    ratio = told["ours"]["median"] / told["by hand"]["median"]
    pairs = statistics.median(a / b for a, b in zip(times.ours, times.hand, strict=True))
    report.row(what, f"{ratio:.2f}", f"of runc run by hand; median of the pairs {pairs:.2f}; goal: {GOAL:g}")
    for name, values in told.items():
        quartiles = f"quartiles {ms(values['low'])}, {ms(values['high'])}"
        report.row(f"  {name}", ms(values["median"]), quartiles)
    report.data[what] = {**told, "ratio": ratio, "ratio_of_pairs": pairs, "reached": ratio <= GOAL}


def _tell_many(report: Report, disk: int, memory: float) -> None:
    report.row(
        f"{INSTANCES} instances", f"{disk / (1 << 20):.1f} MiB",
        f"of disk beside the release of {RELEASE >> 20} MiB, {memory:.1f} MiB of memory each for the init",
    )  # fmt: skip
    report.data["instances"] = {"count": INSTANCES, "disk": disk, "release": RELEASE, "init_mib": memory}
