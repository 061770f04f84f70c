"""The demo's story: v1, v2 under load, a broken v3 and the way back; then whether all of it happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from agent.cli.demo.account import Account, Push, account
from agent.cli.demo.facts import Fact
from agent.cli.demo.load import load
from agent.cli.demo.scenery import PROBATION, state
from agent.cli.demo.stage import HOST, Stage, raised
from agent.cli.demo.stay import stay_up
from agent.cli.demo.timeline import Timeline
from agent.cli.demo.verdict import Check, Evidence, checks

DEADLINE = 58.0  # seconds for the whole story
LIVE_DEADLINE = 15.0  # seconds for one version to become live
APART = 1.0  # seconds between two looks of the agent at its repository: what comes sooner waits


class DemoFailed(Exception):
    """The story took another turn, or too long; the message says which, with the agent's last lines."""


async def show(directory: Path, timeline: Timeline, *, stay: bool, kept: bool) -> dict[str, Any]:
    """The whole demo in a directory. With `stay` it never returns, and ends by cancellation.

    Returns what --json prints. Raises what `raised` raises; in a group, DemoFailed and AgentEnded.
    """
    began = time.monotonic()
    async with raised(directory) as stage, asyncio.TaskGroup() as group:
        guard = group.create_task(stage.agent.guard())
        _introduce(stage, timeline)
        evidence = await _told(stage, timeline)
        verdict = checks(evidence)
        _conclude(stage, timeline, verdict, time.monotonic() - began)
        if stay:
            await stay_up(stage, timeline, kept=kept)
        guard.cancel()
    return {
        "ok": all(check.ok for check in verdict),
        "seconds": round(time.monotonic() - began, 3),
        "status_url": f"{stage.admin}/status",
        "versions": [run.as_json() for run in evidence.accounts.values()],
        "requests": {
            "answered": evidence.load.answered,
            "page": evidence.load.page,
            "lost": evidence.load.lost,
            "seconds": round(evidence.load.seconds, 3),
            "slowest_ms": round(evidence.load.slowest * 1000, 1),
        },
        "last_failure": evidence.status.get("last_failure"),
        "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in verdict],
    }


def _introduce(stage: Stage, timeline: Timeline) -> None:
    timeline.line(("emptybox demo", "bold"), ": git push is the only deploy command")
    timeline.line()
    timeline.entry("Git server", "", f"{stage.repository}   (smart HTTP, webhook to the agent)")
    timeline.entry("artifact server", "", f"{stage.artifacts}/")
    timeline.entry("agent", "", " ".join(stage.command).replace(" --", " \\\n" + " " * 32 + "--"))
    timeline.entry("status", "", f"{stage.admin}/status")
    timeline.entry("the app's port", "", f"{stage.app}/   (nobody listens yet)")


async def _told(stage: Stage, timeline: Timeline) -> Evidence:
    """The story under load, and what was seen. Raises DemoFailed."""
    try:
        async with load(HOST, stage.app_port) as clients:
            evidence = Evidence(load=clients)
            async with asyncio.timeout(DEADLINE):
                await _tell(stage, timeline, evidence)
    except (Unexpected, TimeoutError, aiohttp.ClientError) as error:
        what = str(error) or "it takes too long"
        last = ["", "the agent's last lines:", *stage.agent.last_lines()]
        raise DemoFailed("\n".join([what, *last])) from error
    timeline.heading("All requests")
    timeline.requests(clients, evidence.swaps_began)
    return evidence


async def _tell(stage: Stage, timeline: Timeline, evidence: Evidence) -> None:
    """The story in order; what is seen is put down in `evidence`."""
    await asyncio.sleep(APART)
    timeline.heading("v1", "the first push; nothing runs yet")
    await _deploy(stage, timeline, evidence, "v1")
    await _proven(stage, timeline, evidence, "v1")
    timeline.heading("v2", "a swap, with clients asking all the time")
    await _deploy(stage, timeline, evidence, "v2")
    await _proven(stage, timeline, evidence, "v2")
    timeline.heading("v3", "passes its first probe, and turns bad a second later")
    await _deploy(stage, timeline, evidence, "v3")
    await _taken_back(stage, timeline, evidence)
    await _put_down(stage, evidence)


async def _deploy(stage: Stage, timeline: Timeline, evidence: Evidence, version: str) -> None:
    """Push a version and wait until clients are answered by it."""
    text = state(version, stage.artifacts, stage.app_port)
    commit = await stage.clone.commit({"state.yaml": text}, f"web {version}")
    async with asyncio.timeout(LIVE_DEADLINE), timeline.waiting(f"pushing {version}", evidence.load):
        began = time.time()
        await stage.clone.push()
        push = Push(commit, began, time.time() - began)
        resolved = await stage.facts.first(_is("SyncResolved", commit=commit))
        begun = await stage.facts.first(_is("RunStarted", sync=resolved["sync"]))
        ended = await stage.facts.first(_is("RunFinished", run=begun["run"]))
        found = evidence.accounts[version] = account(stage.facts.told, begun["run"])
        found.push, found.delivery = push, stage.deliveries.get(found.sync)
        if ended["result"] == "probation":
            found.live = await evidence.load.first(version, began)
    timeline.deployed(found)
    app = (await stage.get("/status"))["apps"]["web"]
    evidence.pids[version] = app["child"]["pid"]
    if ended["result"] != "probation":
        timeline.failed(app["last_failure"] or {"reason": "no reason", "message": ended["result"]})
        raise Unexpected(f"{version} did not go live: its run {ended['result']}")


async def _last_word(stage: Stage, found: Account) -> Account:
    """Wait until a run's probation is over; the account up to then."""
    await stage.facts.first(
        lambda fact: _is("RunFinished", run=found.run)(fact) and fact["result"] != "probation"
    )
    newer = account(stage.facts.told, found.run)
    found.results, found.failure, found.ended = newer.results, newer.failure, newer.ended
    return found


async def _proven(stage: Stage, timeline: Timeline, evidence: Evidence, version: str) -> None:
    found = evidence.accounts[version]
    async with timeline.waiting(f"{found.version} is being watched for {PROBATION:g} s", evidence.load):
        await _last_word(stage, found)
    if found.result != "succeeded":
        raise Unexpected(f"{found.version} was to prove itself, but its run is {found.result}")
    timeline.line(
        "  ", (f"{found.version} proved itself", "green"), f": {PROBATION:g} s watched, no bad probe"
    )


async def _taken_back(stage: Stage, timeline: Timeline, evidence: Evidence) -> None:
    found = evidence.accounts["v3"]
    async with timeline.waiting("v3 is being watched", evidence.load):
        await _last_word(stage, found)
        if found.result != "rolled-back":
            raise Unexpected(f"v3 was to be rolled back, but its run is {found.result}")
        await evidence.load.more("v2", 100)
        back = evidence.load.since
    app = (await stage.get("/status"))["apps"]["web"]
    evidence.pid_after = app["child"]["pid"]
    timeline.line("  ", ("v3 is taken back", "bold red"), f": it served for {back - found.live:.1f} s")
    timeline.failed(app["last_failure"] or {"reason": "no reason", "message": "is told"})
    timeline.line(
        "  ", ("v2 serves again", "bold green"), f": the same process as before, pid {evidence.pid_after}"
    )


async def _put_down(stage: Stage, evidence: Evidence) -> None:
    """What there is to be seen at the end."""
    evidence.answer = await stage.ask_app()
    evidence.status = (await stage.get("/status"))["apps"]["web"]
    evidence.history = (await stage.get("/history"))["runs"]


def _conclude(stage: Stage, timeline: Timeline, verdict: list[Check], seconds: float) -> None:
    timeline.heading("Did all of it really happen?")
    for check in verdict:
        timeline.check(check.name, check.ok, check.detail)
    timeline.line()
    missing = sum(not check.ok for check in verdict)
    if missing:
        timeline.line((f"No: {missing} of {len(verdict)} did not.", "bold red"), f" {seconds:.1f} s.")
    else:
        timeline.line(
            ("Yes.", "bold green"), f" {seconds:.1f} s. {stage.admin}/status had the whole picture."
        )


class Unexpected(Exception):
    """The story took another turn; the message says which."""


def _is(name: str, **members: str) -> Callable[[Fact], bool]:
    """Whether a fact has this name and these members."""
    return lambda fact: fact["fact"] == name and all(fact.get(k) == v for k, v in members.items())
