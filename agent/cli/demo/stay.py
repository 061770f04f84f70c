"""`--stay`: the stage stays up for the user's own pushes, and each is told of."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NoReturn

from agent.cli.demo.account import account
from agent.cli.demo.facts import Fact
from agent.cli.demo.load import Load, load
from agent.cli.demo.scenery import guide
from agent.cli.demo.stage import HOST, Stage
from agent.cli.demo.timeline import Timeline

SEEN_DEADLINE = 2.0  # seconds for the clients to meet a version that serves


async def stay_up(stage: Stage, timeline: Timeline, *, kept: bool) -> NoReturn:
    """Say how to go on, and tell what becomes of each push, until cancelled."""
    told = len(stage.facts.told)
    timeline.line()
    timeline.line(
        guide(
            repository=stage.repository,
            app=stage.app,
            admin=stage.admin,
            socket=stage.socket,
            directory=stage.directory,
            kept=kept,
        ).rstrip()
    )
    async with load(HOST, stage.app_port) as clients:
        async for fact in stage.facts.follow(told):
            if fact["fact"] == "RunFinished":
                await _run_ended(stage, timeline, clients, fact)
            elif fact["fact"] == "SyncFinished" and fact["sync"] in stage.deliveries:
                _sync_ended(stage, timeline, fact)
    raise AssertionError("facts never end")


async def _run_ended(stage: Stage, timeline: Timeline, clients: Load, ended: Fact) -> None:
    """A run ended, or had its last word."""
    found = account(stage.facts.told, ended["run"])
    found.delivery = stage.deliveries.get(found.sync)
    if ended["result"] == "probation" and found.delivery is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEN_DEADLINE):
                found.live = await clients.first(found.version, found.delivery.sent)
    if len(found.results) == 1:
        timeline.heading(found.version, found.reason)
        timeline.deployed(found)
    if ended["failure"]:
        app = (await stage.get("/status"))["apps"].get("web") or {}
        timeline.failed(app.get("last_failure") or ended["failure"])
    lost = sum(clients.lost.values())
    so_far = f"{clients.total:,} requests since it is your turn, {clients.page:,} pages, {lost:,} lost"
    timeline.result(f"{found.version}: {ended['result']}", ended["result"], so_far)


def _sync_ended(stage: Stage, timeline: Timeline, ended: Fact) -> None:
    """A push that made no run: say why."""
    facts = [fact for fact in stage.facts.told if fact.get("sync") == ended["sync"]]
    if any(fact["fact"] == "RunStarted" for fact in facts):
        return
    timeline.heading("a push without a run")
    why = ""
    if ended["failure"]:
        timeline.failed(ended["failure"])
    else:
        why = next((f["reason"] for f in reversed(stage.facts.told) if f["fact"] == "AppWanted"), "")
    timeline.result(f"the sync: {ended['result']}", ended["result"], why)
