"""`GET /maintenance`: the page for an ingress in front. 503 with it while an app does not serve, else 204.

Everybody may read it: it tells phases, no names, versions or errors.
"""

from __future__ import annotations

import math
import time

from aiohttp import web

from agent.domain.model import RunResult, StepResult
from agent.domain.spec import MaintenanceSpec
from agent.status.picture import AppPicture, RunPicture, progress_json
from agent.traffic.page import Page, Progress, choose
from agent.web.context import CONTEXT
from agent.web.problem import Problem
from agent.web.words import progress_text

_PHASES = {
    "fetch": "Downloading",
    "verify": "Downloading",
    "unpack": "Unpacking",
    "release": "Unpacking",
    "render": "Preparing",
    "check": "Checking",
    "migrate": "Migrating data",
    "contract": "Migrating data",
    "down": "Going back",
    "stop": "Restarting",
    "start": "Starting",
    "probe": "Starting",
    "canary": "Almost there",
    "switch": "Almost there",
    "drain": "Almost there",
}
_CSP = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
RETRY_AFTER = 10.0


def public_progress(app: AppPicture | None, now: float) -> Progress:
    """How far an app's update is at a time (seconds since the epoch), in words for everyone.

    Percent are those of the time an update usually takes; of its steps while that is not known.
    """
    run = app.run if app is not None else None
    if run is None or run.result is not RunResult.RUNNING:
        return Progress()
    phase, detail, left = _PHASES.get(run.phase, "Updating"), _detail(run), run.seconds_left(now)
    if run.late(now):
        detail = ", ".join(part for part in (detail, "longer than usual") if part)
        return Progress(phase, detail, None, run.started)
    if left is not None:
        gone = max(0.0, now - run.started)
        share = int(100 * gone / max(gone + left, 0.001))
        return Progress(phase, detail, share, run.started, math.ceil(left))
    ended = sum(step.seconds > 0 or step.state in ("succeeded", "skipped") for step in run.steps.values())
    percent = 100.0 * ended / len(run.steps) if run.steps else None
    return Progress(phase, detail, percent, run.started)


def _detail(run: RunPicture) -> str:
    """Which migration runs, and how far the running steps are that tell: "schema", "12.3 of 80.0 MiB"."""
    told = []
    for step in (step for step in run.steps.values() if step.state is StepResult.RUNNING):
        name = step.name.removeprefix("migrate").strip()
        if step.kind in ("migrate", "contract") and name:
            told.append(name)
        if step.progress:
            told.append(progress_text(progress_json(step.progress)))
    return ", ".join(told)


async def maintenance(request: web.Request) -> web.Response:
    """The page of the first app (or of ?app=) that does not serve; 204 when all serve."""
    apps = request.app[CONTEXT].board.apps
    name = request.query.get("app")
    if name is not None and name not in apps:
        raise Problem(404, "UnknownApp", "there is no such app")
    chosen = list(apps.values()) if name is None else [apps[name]]
    away = next((app for app in chosen if not app.serving), None)
    if away is None:
        return web.Response(status=204)
    page = Page(MaintenanceSpec(retry_after=RETRY_AFTER), lambda: public_progress(away, time.time()))
    form = choose(request.headers.get("Accept", ""))
    return web.Response(
        status=503,
        body=await page.body(form),
        headers={
            "Content-Type": f"{form}; charset=utf-8",
            "Retry-After": str(page.retry_after),
            "Content-Security-Policy": _CSP,
            "Vary": "Accept",
        },
    )
