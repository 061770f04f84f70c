"""What the keeper and the agent cost while nothing happens, beside a bare aiohttp server in the same time.

Git is loaded (a first version came from it), one app runs and is probed, polling is as by default. The
app's own process is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator

from agent.cli.demo.archives import archive
from benchmarks import proc
from benchmarks.report import Report
from benchmarks.rig import rig

SECONDS = 60.0  # long enough for a poll
SETTLE = 12.0  # seconds after the app has proved itself
PSS_GOAL, CPU_GOAL, WAKEUPS_GOAL = 60.0, 0.2, 1.0  # MiB, percent of a core, a second

YARDSTICK = """
import asyncio
from aiohttp import web

async def main():
    application = web.Application()
    application.router.add_get("/", lambda request: web.Response(text="fine"))
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def run(seconds: float = SECONDS) -> Report:
    """Measure."""
    build = archive("v1")
    async with rig({"web-v1.tar.gz": build}) as stand, _yardstick() as aiohttp:
        state = stand.state("v1", hashlib.sha256(build).hexdigest(), probation="1s")
        await stand.publish(state, "v1")
        await stand.start_agent()
        await stand.proven("v1")
        agent = int((await stand.status())["agent"]["pid"])
        assert stand.agent is not None
        keeper = stand.agent.process.pid
        assert agent in proc.children(keeper)
        await asyncio.sleep(SETTLE)
        (scribe,) = [pid for pid in proc.children(keeper) if os.getsid(pid) == os.getsid(keeper)]
        pids = {"keeper": keeper, "scribe": scribe, "agent": agent, "aiohttp": aiohttp}
        before = {name: proc.cost(pid) for name, pid in pids.items()}
        await asyncio.sleep(seconds)
        found = {name: proc.between(pid, before[name]) for name, pid in pids.items()}
    return _report(found, seconds)


@contextlib.asynccontextmanager
async def _yardstick() -> AsyncIterator[int]:
    """A bare aiohttp server that waits; gives its pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", YARDSTICK, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        await process.communicate()


def _report(found: dict[str, proc.Idle], seconds: float) -> Report:
    ours = found["keeper"] + found["scribe"] + found["agent"]
    report = Report(f"idle, over {seconds:g} s: PSS, CPU, wake-ups")
    for name in ("keeper", "scribe", "agent"):
        idle = found[name]
        report.row(f"  {name}", f"{idle.pss:.1f} MiB", _rates(idle))
    goal = f"goal: at most {PSS_GOAL:g} MiB, {CPU_GOAL:g} %, {WAKEUPS_GOAL:g} a second"
    report.row("together", f"{ours.pss:.1f} MiB", f"{_rates(ours)}; {goal}")
    report.row("a bare aiohttp server", f"{found['aiohttp'].pss:.1f} MiB", _rates(found["aiohttp"]))
    report.data = {
        "seconds": seconds,
        **{
            name: {"pss_mib": idle.pss, "cpu_percent": idle.cpu, "wakeups_per_second": idle.wakeups}
            for name, idle in {**found, "together": ours}.items()
        },
        "goals": {"pss_mib": PSS_GOAL, "cpu_percent": CPU_GOAL, "wakeups_per_second": WAKEUPS_GOAL},
        "reached": ours.pss <= PSS_GOAL and ours.cpu <= CPU_GOAL and ours.wakeups <= WAKEUPS_GOAL,
    }
    return report


def _rates(idle: proc.Idle) -> str:
    return f"{idle.cpu:.3f} % of a core, {idle.wakeups:.2f} wake-ups a second"
