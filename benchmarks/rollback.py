"""Rollback by flip: from the verdict over a bad version until the old one answers everywhere.

A version is deployed that turns unhealthy while it serves. The agent's own word says when the verdict fell
(the app's state becomes `degraded`), clients in a process of their own when the bad version answered a new
connection for the last time. All clocks are one machine's.
"""

from __future__ import annotations

import asyncio
import hashlib

from agent.cli.demo.archives import archive
from agent.cli.demo.facts import Facts
from agent.kit.tasks import Owned
from benchmarks.report import Report, ms, spread
from benchmarks.rig import Rig, rig
from benchmarks.swarm import swarm

ROUNDS = 15
RATE = 500  # new connections a second
GOAL = 0.05
GOOD = {"interval": "50ms", "probation": "300ms"}
BAD = {"interval": "50ms", "probation": "30s"}


async def run(rounds: int = ROUNDS) -> Report:
    """Measure."""
    versions = [f"bad{number}" for number in range(rounds)]
    builds = {"good": archive("good"), **{v: archive(v, "sickens") for v in versions}}
    seconds: list[float] = []
    async with rig({f"web-{v}.tar.gz": data for v, data in builds.items()}, poll="1h") as stand:
        await stand.publish(_state(stand, "good", builds, GOOD), "good")
        await stand.start_agent()
        await stand.proven("good")
        facts = Facts(stand.session, f"{stand.admin}/events")
        async with Owned("benchmark") as tasks, swarm("127.0.0.1", stand.app_port, RATE) as clients:
            tasks.start(facts.run(), name="facts")
            for version in versions:
                told = len(facts.told)
                await stand.announce(await stand.publish(_state(stand, version, builds, BAD), version))
                await clients.answered(version, 50)
                async with asyncio.timeout(30):
                    verdict = await _verdict(facts, told)
                await stand.until(lambda: _back(stand))
                seen = clients.new["good"]
                await clients.answered("good", seen + 300)
                seconds.append(max(0.0, clients.seen[version] - verdict))
        lost = clients.lost()
    return _report(seconds, lost, clients.total)


def _state(stand: Rig, version: str, builds: dict[str, bytes], health: dict[str, str]) -> str:
    return stand.state(version, hashlib.sha256(builds[version]).hexdigest(), **health)


async def _verdict(facts: Facts, after: int) -> float:
    """When what serves was given up, of what is told after so many facts: its state leaves probation."""
    on_trial = False
    async for fact in facts.follow(after):
        if fact["fact"] == "AppStateChanged":
            if on_trial and fact["state"] == "degraded":
                return float(fact["at"])
            on_trial = fact["state"] == "probation"
    raise AssertionError("facts never end")


async def _back(stand: Rig) -> bool:
    app = (await stand.status())["apps"]["web"]
    return bool(app["current"]["version"] == "good" and app["run"] is None)


def _report(seconds: list[float], lost: dict[str, int], total: int) -> Report:
    found = spread(seconds)
    report = Report(f"rollback by flip, {len(seconds)} times under {RATE} new connections a second")
    report.row(
        "verdict to old version everywhere",
        ms(found["median"]),
        f"({ms(found['low'])} to {ms(found['high'])}, longest {ms(max(seconds))}; goal: {ms(GOAL)})",
    )
    report.row("new connections lost", str(sum(lost.values())), f"of {total}")
    report.data = {
        "rounds": len(seconds),
        "seconds": found,
        "longest": max(seconds),
        "lost": lost,
        "connections": total,
        "goal": GOAL,
        "reached": found["median"] <= GOAL and not lost,
    }
    return report
