"""From the signed webhook to the new version's first answer, against the bare steps done by hand.

Both sides deploy the same commits and artifacts (200 kB of tar.gz, most of it incompressible) from the same
two servers, in turns, and one process (`benchmarks.bare`) does the bare steps and holds the clock for both.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent.cli.demo.account import account
from agent.cli.demo.archives import archive
from agent.cli.demo.facts import Facts
from agent.kit.tasks import Owned
from benchmarks.report import Report, ms, spread
from benchmarks.rig import Rig, rig

SIZE = 200_000  # bytes of an archive
GOAL = 1.5
ROUNDS = 21
WARM_UP = 2  # rounds that do not count
APART = 1.2  # seconds between two pushes: sooner ones wait for the second to pass
LINE_MAX = 1 << 20
Json = dict[str, Any]


async def run(rounds: int = ROUNDS) -> Report:
    """Measure."""
    versions = [f"r{number}" for number in range(rounds + WARM_UP)]
    builds = {version: padded(version) for version in versions}
    async with rig({f"web-{v}.tar.gz": data for v, data in builds.items()}, poll="1h") as stand:
        await stand.publish('{"schema": 1, "apps": {}}\n', "nothing")
        await stand.start_agent()
        facts = Facts(stand.session, f"{stand.admin}/events")
        async with _clock(stand) as clock:
            bare: list[Json] = []
            ours: list[Json] = []
            for number, version in enumerate(versions):
                checksum = hashlib.sha256(builds[version]).hexdigest()
                state = stand.state(version, checksum, interval="100ms", probation="300ms")
                order = {"commit": await stand.publish(state, version), "version": version}
                for what in ("bare", "push") if number % 2 else ("push", "bare"):
                    await asyncio.sleep(APART)
                    found = await clock({"do": what, **order})
                    if what == "push":
                        await stand.proven(version)
                        await _told(facts, found)
                        ours.append(found)
                    else:
                        bare.append(found)
            return _report(bare[WARM_UP:], ours[WARM_UP:], facts)


async def _told(facts: Facts, found: Json) -> None:
    """Let the agent tell of a round, now that it is over: listening during it would be part of its work."""
    async with asyncio.timeout(10.0), Owned("benchmark") as tasks:
        tasks.start(facts.run(), name="facts")
        begun = await facts.first(lambda f: f["fact"] == "RunStarted" and f["sync"] == found["sync"])
        await facts.first(lambda f: f["fact"] == "RunFinished" and f["run"] == begun["run"])
    found["run"] = begun["run"]


def padded(version: str) -> bytes:
    """The sample server as an archive of about SIZE bytes."""
    return archive(version, extra={"data/noise": os.urandom(SIZE - len(archive(version)) - 600)})


@asynccontextmanager
async def _clock(stand: Rig) -> AsyncIterator[Any]:
    """The process that measures; gives the coroutine function that hands it an order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_MAX,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    given = {
        "git": stand.repository,
        "artifacts": stand.artifacts,
        "webhook": f"{stand.admin}/webhook",
        "secret": stand.secret,
        "app_port": stand.app_port,
        "port": stand.spare_port,
        "directory": str(stand.directory / "bare"),
    }
    process.stdin.write(json.dumps(given).encode() + b"\n")

    async def order(what: Json) -> Json:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(what).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the measuring process ended")
        found: Json = json.loads(line)
        return found

    try:
        yield order
    finally:
        process.stdin.close()
        await process.wait()


def _report(bare: list[Json], ours: list[Json], facts: Facts) -> Report:
    by_hand, agent = spread([r["seconds"] for r in bare]), spread([r["seconds"] for r in ours])
    ratio = agent["median"] / by_hand["median"]
    report = Report(f"push to live, {len(ours)} rounds in turns, medians (quartiles)")
    report.row("bare steps", ms(by_hand["median"]), f"({ms(by_hand['low'])} to {ms(by_hand['high'])})")
    bare_steps = {name: statistics.median(r["steps"][name] for r in bare) for name in bare[0]["steps"]}
    for name, seconds in bare_steps.items():
        report.row(f"  {name}", ms(seconds))
    report.row("webhook to live", ms(agent["median"]), f"({ms(agent['low'])} to {ms(agent['high'])})")
    answered = statistics.median(r["answered"] for r in ours)
    report.row("  webhook answered", ms(answered))
    our_steps = _our_steps(ours, facts)
    for name, (at, seconds) in our_steps.items():
        report.row(f"  {name}", ms(seconds), f"began at +{ms(at)}")
    report.row("ratio", f"{ratio:.2f}", f"goal: at most {GOAL}")
    report.data = {
        "rounds": len(ours),
        "bare": by_hand,
        "ours": agent,
        "ratio": ratio,
        "goal": GOAL,
        "reached": ratio <= GOAL,
        "bare_steps": bare_steps,
        "our_steps": {name: {"at": at, "seconds": seconds} for name, (at, seconds) in our_steps.items()},
        "answered": answered,
    }
    return report


def _our_steps(ours: list[Json], facts: Facts) -> dict[str, tuple[float, float]]:
    """Medians of each step: when it began after the webhook was sent, and how long it took."""
    began: dict[str, list[float]] = {}
    took: dict[str, list[float]] = {}
    for round_ in ours:
        for step in account(facts.told, round_["run"]).steps:
            began.setdefault(step.name, []).append(step.began - round_["sent"])
            took.setdefault(step.name, []).append(step.seconds)
    return {name: (statistics.median(began[name]), statistics.median(took[name])) for name in began}
