"""An app that says 100 MB a second: what that does to the agent, to the app itself, and to the disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import statistics
import sys
import time
from pathlib import Path

import aiohttp

from agent.cli.demo.archives import archive
from benchmarks import proc
from benchmarks.report import Report, ms
from benchmarks.rig import Rig, rig

SECONDS = 30.0
RATE = 100_000_000  # bytes a second that the app tries to say
LAG_GOAL = 0.05  # seconds

# Lines of 128 bytes, in the sample server's own process group and at the given rate.
FLOODER = f"""
import os, sys, time
chunk = (b"y" * 127 + b"\\n") * 512
began, said = time.monotonic(), 0
while True:
    os.write(1, chunk)
    said += len(chunk)
    ahead = said / {RATE} - (time.monotonic() - began)
    if ahead > 0.001:
        time.sleep(ahead)
"""


async def run(seconds: float = SECONDS) -> Report:
    """Measure."""
    build = archive("v1")
    async with rig({"web-v1.tar.gz": build}) as stand:
        state = json.loads(stand.state("v1", hashlib.sha256(build).hexdigest(), probation="1s"))
        flood = f'{sys.executable} -S -c "$1" & exec {sys.executable} -S bin/web'
        state["apps"]["web"]["run"]["command"] = ["/bin/sh", "-c", flood, "flood", FLOODER]
        await stand.publish(json.dumps(state), "v1")
        await stand.start_agent()
        await stand.proven("v1")
        assert stand.agent is not None
        agent, keeper = int((await stand.status())["agent"]["pid"]), stand.agent.process.pid
        heard, cost, passed = _heard(keeper), proc.cost(keeper), _size(stand.directory / "agent.log")
        answers = await _answers(f"{stand.admin}/healthz", seconds)
        heard, used = (_heard(keeper) - heard) / seconds, proc.between(keeper, cost)
        passed = (_size(stand.directory / "agent.log") - passed) / seconds
        lag = await _lag(stand)
        kept = sum(map(_size, stand.directory.glob("**/output.log*")))
        assert agent == int((await stand.status())["agent"]["pid"])
    report = Report(f"a flood of output, over {seconds:g} s")
    report.row("the keeper hears", f"{heard / 1e6:.0f} MB/s", f"{used.cpu:.0f} % of a core")
    report.row("it passes on", f"{passed / 1e6:.1f} MB/s", "to its standard output")
    report.row("kept on disk", f"{kept / 1e6:.1f} MB", "in all")
    report.row("loop lag, at its worst", ms(lag), f"by the agent's own metric; goal: below {ms(LAG_GOAL)}")
    p99 = statistics.quantiles(answers, n=100)[98]
    report.row("GET /healthz", ms(statistics.median(answers)), f"99 % {ms(p99)}, slowest {ms(max(answers))}")
    report.data = {
        "heard_bytes_per_second": heard, "passed_bytes_per_second": passed, "kept_bytes": kept,
        "keeper_cpu_percent": used.cpu, "loop_lag_max_seconds": lag,
        "healthz_seconds": {"median": statistics.median(answers), "p99": p99, "max": max(answers)},
        "reached": lag < LAG_GOAL,
    }  # fmt: skip
    return report


async def _answers(url: str, seconds: float) -> list[float]:
    """How long each answer took, asked every 10 ms."""
    found: list[float] = []
    end = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        while (began := time.monotonic()) < end:
            async with session.get(url) as answer:
                await answer.read()
            found.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
    return found


async def _lag(stand: Rig) -> float:
    async with stand.session.get(f"{stand.admin}/metrics") as answer:
        found = re.search(r"^emptybox_event_loop_lag_max_seconds (\S+)", await answer.text(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def _heard(pid: int) -> float:
    """Bytes a process has read."""
    lines = (Path("/proc") / str(pid) / "io").read_text().splitlines()
    return float(dict(line.split(": ") for line in lines)["rchar"])


def _size(path: Path) -> float:
    return path.stat().st_size
