"""Health: the verdict over probes. Before a child gets traffic, and for as long as it has it.

Before: `until_healthy`. The first probe is sent at once, the next after 2, 4, 8 ... ms up to `interval`,
until `successes` in a row pass. It ends early when the child does.

After: `watch`.

    healthy --probe fails--> suspected --`failures` in a row--> unhealthy
       ^                         |                                  |
       +------one passes---------+         `successes` in a row-----+--> healthy

What a watch costs: while a child is on probation, is suspected, or has just changed its verdict, it is
probed every `interval`; after `probation` seconds of quiet only every CALM seconds, all children in the
same moment. A probe wakes the agent about four times, so idle apps cost about 0.4 wake-ups a second
together and not 8 each; the price is that a child that goes bad later is found out after at most
CALM + `failures` x (`interval` + `timeout`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from agent.domain.errors import FailureInfo, FailureKind, Permanent
from agent.domain.spec import HealthSpec, ProbeKind
from agent.kit.tasks import unless
from agent.process.probe import ProbeResult, ProbeTarget, probe

FIRST_PAUSE = 0.002  # seconds between the first probe and the second
CALM = 10.0  # seconds between probes of a child that has long been healthy


@dataclass(frozen=True, slots=True)
class Healthy:
    """A child proved itself: after how many probes and seconds, and what the last one saw."""

    probes: int
    seconds: float
    detail: str


def described(spec: HealthSpec) -> str:
    """What is probed, for people."""
    return {
        ProbeKind.HTTP: f"health.http {spec.path}",
        ProbeKind.TCP: "health.tcp",
        ProbeKind.EXEC: f"health.exec {' '.join(spec.command)}",
        ProbeKind.ALIVE: "health.alive",
        ProbeKind.NOTIFY: "health.notify",
    }[spec.kind]


async def until_healthy(spec: HealthSpec, target: ProbeTarget, ended: asyncio.Event) -> Healthy:
    """Probe a child that has just been started until it is healthy.

    Raises Permanent("ProbeFailed") at `spec.deadline`, Permanent("ChildExited") once `ended` is set.
    The child's last lines are for the caller to add.
    """
    seen: list[ProbeResult] = []
    try:
        async with asyncio.timeout(spec.deadline) as limit:
            healthy = await unless(ended, _prove(spec, target, seen, limit), name="until healthy")
    except TimeoutError:
        last = seen[-1].detail if seen else f"no answer within {spec.deadline:g} s"
        if spec.kind is ProbeKind.NOTIFY:
            last = "it has not said that it is ready"
        raise Permanent(
            "ProbeFailed",
            f"not healthy within {spec.deadline:g} s: {last}",
            where=described(spec),
            remedy="see its last lines; a slow start needs a longer health.deadline",
        ) from None
    if healthy is None:
        raise Permanent(
            "ChildExited",
            "the program ended before it was healthy",
            where=described(spec),
            remedy="see its last lines",
        )
    return healthy


async def _prove(
    spec: HealthSpec, target: ProbeTarget, seen: list[ProbeResult], limit: asyncio.Timeout
) -> Healthy:
    """Probe until `successes` in a row; `seen` keeps the last result, and counts nothing else."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    if spec.kind is ProbeKind.ALIVE:
        await asyncio.sleep(spec.alive)
        return Healthy(0, spec.alive, f"ran for {spec.alive:g} s")
    if spec.kind is ProbeKind.NOTIFY:
        return Healthy(0, loop.time() - started, await target.ready(limit) or "it says that it is ready")
    pause, count, passed = FIRST_PAUSE, 0, 0
    while True:
        result = await probe(spec, target)
        seen[:] = [result]
        count += 1
        passed = passed + 1 if result.ok else 0
        if passed >= spec.successes:
            return Healthy(count, loop.time() - started, result.detail)
        # Successes in a row mean something only when time passes between them.
        await asyncio.sleep(spec.interval if passed else min(pause, spec.interval))
        pause *= 2


async def watch(spec: HealthSpec, target: ProbeTarget) -> AsyncIterator[FailureInfo | None]:
    """Changes of the verdict over a healthy child: a failure when it turns bad, None when good again.

    Ends when the child has: its end is told elsewhere. Nothing is probed for `alive` and `notify`.
    """
    if spec.kind in (ProbeKind.ALIVE, ProbeKind.NOTIFY):
        return
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    bad, passed, failed = False, 0, 0
    while True:
        attentive = loop.time() - quiet_since < spec.probation or (failed > 0 and not bad)
        period = max(spec.interval, CALM)
        # Calm probes of all children meet: what wakes up for one of them wakes up for all.
        await asyncio.sleep(spec.interval if attentive else period - loop.time() % period)
        result = await probe(spec, target)
        if not target.alive():
            return
        passed, failed = (passed + 1, 0) if result.ok else (0, failed + 1)
        if not bad and failed >= spec.failures:
            bad, quiet_since = True, loop.time()
            yield FailureInfo(
                FailureKind.PERMANENT,
                "ProbeFailed",
                f"{failed} probes in a row failed, the last one with: {result.detail}",
                where=described(spec),
                remedy="see its last lines",
            )
        elif bad and passed >= spec.successes:
            bad, quiet_since = False, loop.time()
            yield None
