"""Apps that do what apps should not do, each beside a good one: what that does to the agent and to the other.

`/status` and the good app are asked every 20 ms, from the push that brings the rogue until it is removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.cli.demo.archives import archive
from benchmarks.report import Report, ms
from benchmarks.rig import Rig, rig

SECONDS = 6.0  # of each
STATUS_GOAL, GROWTH_GOAL = 0.1, 10.0  # seconds, MiB
DISK = "size=48m"  # of the file system that the data directory is on, so that it can be filled

ROGUES = {
    "forks on and on": """
while True:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(0.1)
            os._exit(0)
    for _ in range(100):
        os.wait()
""",
    "goes into the background": """
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
""",
    "does not listen to TERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "leaves zombies": """
for _ in range(1000):
    if os.fork() == 0:
        os._exit(0)
""",
    "eats memory": """
while True:
    hog = []
    for _ in range(30):
        hog.append(b"x" * (10 << 20))
""",
    "opens 10,000 files": """
files = []
while len(files) < 10_000:
    files.append(os.dup(0))
""",
    "fills its disk": """
try:
    with open("data/all", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
except OSError:
    pass
""",
}


@dataclass(slots=True)
class Seen:
    """Of one rogue: seconds of each answer of /status; wrong answers of the good app; growth in MiB."""

    answers: list[float] = field(default_factory=list)
    asked: int = 0
    lost: int = 0
    growth: float = 0.0


async def run(seconds: float = SECONDS) -> Report:
    """Measure; the disk is only filled where a small one can be mounted."""
    build = archive("v1")
    found: dict[str, Seen] = {}
    async with rig({"web-v1.tar.gz": build}) as stand:
        data = stand.directory / "data"
        data.mkdir()
        small = _mount(data)
        try:
            state = json.loads(stand.state("v1", hashlib.sha256(build).hexdigest(), probation="1s"))
            await stand.publish(json.dumps(state), "v1")
            await stand.start_agent()
            await stand.proven("v1")
            wanted = [name for name in ROGUES if small or "disk" not in name]
            for names in [*([name] for name in wanted), wanted]:
                label = names[0] if len(names) == 1 else "all of them at once"
                found[label] = await _beside(stand, state, names, seconds)
            assert stand.agent is not None
            await stand.agent.stop()
            stand.agent = None
        finally:
            if small:
                subprocess.run(["umount", "--lazy", str(data)], check=True)
    return _report(found, seconds)


def _mount(data: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(data)]
    return os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0


def _rogue(name: str) -> dict[str, Any]:
    text = f"import os, signal, sys, time\n{ROGUES[name]}\ntime.sleep(1000)\n"
    run: dict[str, Any] = {"command": [sys.executable, "-S", "-c", text], "stop": {"grace": "1s"}}
    run["rlimits"] = {"open_files": 12_000}
    if os.geteuid() == 0:
        run["isolation"] = {"namespaces": ["pid"]}  # the end of what went into the background
    health = {"alive": "500ms", "probation": "500ms"}
    return {"version": "1", "run": run, "dirs": {"cache": "data"}, "health": health}


async def _beside(stand: Rig, state: dict[str, Any], names: list[str], seconds: float) -> Seen:
    seen = Seen()
    agent = int((await stand.status())["agent"]["pid"])
    before = _own(agent)
    apps = {f"rogue-{number}": _rogue(name) for number, name in enumerate(names)}
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_ask(stand, seen, over))
        group.create_task(_use(stand, seen, over))
        await stand.publish(json.dumps({**state, "apps": {**state["apps"], **apps}}), ", ".join(names))
        await stand.sync()
        await asyncio.sleep(seconds)
        for full in stand.directory.glob("data/apps/*/dirs/cache/all"):
            full.unlink()  # on a full disk no other state can be kept
        await stand.publish(json.dumps(state), "gone")
        await stand.sync()

        async def gone() -> bool:
            return not set(apps) & set((await stand.status())["apps"])

        await stand.until(gone)
        over.set()
    assert agent == int((await stand.status())["agent"]["pid"])
    seen.growth = _own(agent) - before
    return seen


def _own(pid: int) -> float:
    """MiB of memory that no file stands behind."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss_Anon:"))


async def _ask(stand: Rig, seen: Seen, over: asyncio.Event) -> None:
    while not over.is_set():
        began = time.monotonic()
        async with stand.session.get(f"{stand.admin}/status") as answer:
            await answer.read()
        seen.answers.append(time.monotonic() - began)
        await asyncio.sleep(0.02)


async def _use(stand: Rig, seen: Seen, over: asyncio.Event) -> None:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        while not over.is_set():
            seen.asked += 1
            try:
                async with session.get(f"http://127.0.0.1:{stand.app_port}/") as answer:
                    seen.lost += await answer.text() != "v1\n"
            except aiohttp.ClientError:
                seen.lost += 1
            await asyncio.sleep(0.02)


def _report(found: dict[str, Seen], seconds: float) -> Report:
    report = Report(f"/status beside an app that ..., for {seconds:g} s, then removed")
    for name, seen in found.items():
        p99 = statistics.quantiles(seen.answers, n=100)[98]
        report.row(
            name, f"{ms(max(seen.answers))} at worst",
            f"median {ms(statistics.median(seen.answers))}, 99 % {ms(p99)}; agent {seen.growth:+.1f} MiB; "
            f"of the other app lost {seen.lost} of {seen.asked}",
        )  # fmt: skip
    worst, growth = max(max(s.answers) for s in found.values()), max(s.growth for s in found.values())
    report.data = {
        "status_seconds": {name: max(seen.answers) for name, seen in found.items()},
        "growth_mib": {name: seen.growth for name, seen in found.items()},
        "lost": sum(seen.lost for seen in found.values()),
        "goals": {"status_seconds": STATUS_GOAL, "growth_mib": GROWTH_GOAL},
        "reached": worst < STATUS_GOAL and growth < GROWTH_GOAL,
    }  # fmt: skip
    return report
