"""What fifty apps cost beside one, and how long it takes until all serve again when all end at once.

Each is a small server with a port of its own, probed over HTTP. The apps' own processes are not counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from typing import Any

import aiohttp

from agent.cli.demo.archives import archive
from agent.cli.demo.ports import free_port
from benchmarks import proc
from benchmarks.report import Report
from benchmarks.rig import Rig, rig

APPS = 50
SECONDS = 60.0
SETTLE = 22.0  # seconds after the last app has proved itself: probes are rare by then, and all is tidied
PSS_GOAL, WAKEUPS_GOAL, STATUS_GOAL = 1.0, 0.1, 0.1  # MiB and a second, more for each app; seconds


async def run(apps: int = APPS, seconds: float = SECONDS, settle: float = SETTLE) -> Report:
    """Measure."""
    build = archive("v1")
    checksum = hashlib.sha256(build).hexdigest()
    async with rig({"web-v1.tar.gz": build}) as stand:
        one = await _idle(stand, _state(stand, checksum, 1), seconds, settle)
        many = await _idle(stand, _state(stand, checksum, apps), seconds, settle)
        storm = await _storm(stand)
    return _report(apps, one, many, storm, seconds)


def _state(stand: Rig, checksum: str, count: int) -> str:
    """So many copies of the one app, each with its own port."""
    state = json.loads(stand.state("v1", checksum, probation="1s"))
    web = state["apps"]["web"]
    taken = {stand.app_port, stand.spare_port}
    for number in range(1, count):
        listen = {"http": {"port": free_port(taken), "address": "127.0.0.1"}}
        state["apps"][f"web-{number}"] = {**web, "listen": listen}
    return json.dumps(state)


async def _idle(stand: Rig, state: str, seconds: float, settle: float) -> proc.Idle:
    """What keeper, scribe and agent cost together with this state."""
    await stand.publish(state, f"{len(json.loads(state)['apps'])} apps")
    if stand.agent is None:
        await stand.start_agent()
    else:
        await stand.sync()
    count = len(json.loads(state)["apps"])
    while len(await _running(stand)) < count:  # as long as it takes: pythons begin two at a time
        await asyncio.sleep(0.2)
    await asyncio.sleep(settle)
    assert stand.agent is not None
    keeper = stand.agent.process.pid
    agent = int((await stand.status())["agent"]["pid"])
    (scribe,) = [pid for pid in proc.children(keeper) if os.getsid(pid) == os.getsid(keeper)]
    before = {pid: proc.cost(pid) for pid in (keeper, scribe, agent)}
    await asyncio.sleep(seconds)
    parts = [proc.between(pid, cost) for pid, cost in before.items()]
    return parts[0] + parts[1] + parts[2]


async def _running(stand: Rig) -> dict[str, int]:
    """Pids of the apps that serve and have proved themselves, by name."""
    apps: dict[str, Any] = (await stand.status())["apps"]
    return {name: app["child"]["pid"] for name, app in apps.items() if app["state"] == "running"}


async def _storm(stand: Rig) -> dict[str, float]:
    """Kill every app at once: seconds until all serve again, the slowest /status meanwhile, growth in MiB."""
    before = await _running(stand)
    agent = int((await stand.status())["agent"]["pid"])
    size, slowest, began = proc.pss(agent), 0.0, time.monotonic()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    while True:
        asked = time.monotonic()
        after = await _running(stand)
        slowest = max(slowest, time.monotonic() - asked)
        if len(after) == len(before) and not set(after.values()) & set(before.values()):
            break
        await asyncio.sleep(0.05)
    recovered = time.monotonic() - began
    async with asyncio.TaskGroup() as group:
        for port in await _ports(stand):
            group.create_task(_asked(stand.session, port))
    return {"seconds": recovered, "slowest_status": slowest, "growth_mib": proc.pss(agent) - size}


async def _ports(stand: Rig) -> list[int]:
    state = json.loads((stand.clone.directory / "state.yaml").read_text())
    return [app["listen"]["http"]["port"] for app in state["apps"].values()]


async def _asked(session: aiohttp.ClientSession, port: int) -> None:
    async with session.get(f"http://127.0.0.1:{port}/") as answer:
        assert await answer.text() == "v1\n"


def _report(apps: int, one: proc.Idle, many: proc.Idle, storm: dict[str, float], seconds: float) -> Report:
    more = apps - 1
    each = {name: (getattr(many, name) - getattr(one, name)) / more for name in ("pss", "wakeups", "cpu")}
    report = Report(f"{apps} apps beside one, over {seconds:g} s: PSS, CPU, wake-ups")
    for name, idle in (("one app", one), (f"{apps} apps", many)):
        told = f"{idle.cpu:.3f} % of a core, {idle.wakeups:.2f} wake-ups a second"
        report.row(f"  {name}", f"{idle.pss:.1f} MiB", told)
    goal = f"goal: below {PSS_GOAL:g} MiB, {WAKEUPS_GOAL:g} a second"
    rates = f"{each['cpu']:.4f} %, {each['wakeups']:.3f} wake-ups a second; {goal}"
    report.row("each further app", f"{each['pss']:.2f} MiB", rates)
    report.row(
        f"all {apps} killed at once", f"{storm['seconds']:.1f} s",
        f"until all serve; slowest /status {1000 * storm['slowest_status']:.0f} ms "
        f"(goal: below {1000 * STATUS_GOAL:g}), agent {storm['growth_mib']:+.1f} MiB",
    )  # fmt: skip
    report.data = {
        "apps": apps, "seconds": seconds, "each": each, "storm": storm,
        "goals": {"pss_mib": PSS_GOAL, "wakeups_per_second": WAKEUPS_GOAL, "status_seconds": STATUS_GOAL},
        "reached": each["pss"] < PSS_GOAL and each["wakeups"] < WAKEUPS_GOAL
        and storm["slowest_status"] < STATUS_GOAL,
    }  # fmt: skip
    return report
