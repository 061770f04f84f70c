"""The page for browsers: one self-contained HTML document, which keeps itself fresh.

With JavaScript the page listens to /events and takes over the changed part of itself; without, it loads
itself again every few seconds. Nothing comes from another host: style and script stand in the page, and
the Content-Security-Policy names their hashes and allows nothing else. Jinja2 escapes all that is told.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from markupsafe import Markup, escape

from agent.kit.clock import span
from agent.web import words

if TYPE_CHECKING:
    import jinja2

Json = dict[str, Any]

LOG_LINES = 40  # of a failure, on the page

_MARKS = {
    "succeeded": "✓",
    "running": "●",
    "failed": "✕",
    "undone": "↺",
    "cancelled": "–",
    "skipped": "–",
    "pending": "·",
}


@dataclass(frozen=True, slots=True)
class _Document:
    """The compiled template and the policy that fits it."""

    template: jinja2.Template
    style: str
    policy: str


async def page(snapshot: Json, now: float) -> web.Response:
    """The page as a response."""
    html, policy = await asyncio.to_thread(render, snapshot, now)
    headers = {"Vary": "Accept", "Content-Security-Policy": policy}
    return web.Response(text=html, content_type="text/html", headers=headers)


def render(snapshot: Json, now: float) -> tuple[str, str]:
    """The page and its Content-Security-Policy."""
    document = _document()
    apps = [_app(name, app, now) for name, app in snapshot["apps"].items()]
    tone, verdict = words.verdict(snapshot)
    html = document.template.render(
        style=document.style,
        agent=snapshot["agent"],
        source=snapshot["source"],
        paused=snapshot["paused"],
        troubles=words.noteworthy(snapshot["conditions"]),
        apps=apps,
        tone=tone,
        verdict=verdict,
        active=any(app["run"] for app in apps),
        now=now,
    )
    return html, document.policy


@functools.cache
def _document() -> _Document:
    import jinja2  # the idle agent needs none of it

    source = Path(__file__).with_name("dashboard.html.j2").read_text(encoding="utf-8")
    style = Path(__file__).with_name("dashboard.css").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", source, re.DOTALL)
    assert script is not None
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script[1])}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(span=span, short=words.short, code=_code)
    environment.globals.update(age=words.age, ago=words.ago, until=words.until)
    return _Document(environment.from_string(source), style, policy)


def _code(text: str) -> Markup:
    """`text` with what stands between backticks set as code."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one is left over: leave all as they are
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else part for odd, part in enumerate(parts)
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _app(name: str, app: Json, now: float) -> Json:
    """What the template shows of one app."""
    current, wanted, good = app["current"], app["wanted"], app["good"]
    differs = wanted is not None and (current is None or wanted["spec"] != current["spec"])
    run, last = app["run"], app["last_run"]
    return {
        **app,
        "name": name,
        "tone": words.tone(app),
        "wanted": wanted if differs else None,
        "good": good
        if good is not None and current is not None and good["spec"] != current["spec"]
        else None,
        "run": None if run is None else _run(run, now),
        "last_run": None if last is None else _run(last, now),
        "troubles": words.noteworthy(app["conditions"]),
        "failure": _failure(app["last_failure"]),
        "failing": _is_open(app),
    }


def _failure(failure: Json | None) -> Json | None:
    if failure is None:
        return None
    log = failure["log"]
    return {**failure, "log": log[-LOG_LINES:], "left_out": max(0, len(log) - LOG_LINES)}


def _is_open(app: Json) -> bool:
    """Whether the last failure still matters: what is wanted does not serve, or not well."""
    return words.tone(app) in ("warn", "bad") or (app["last_run"] or {}).get("result") in (
        "failed",
        "rolled-back",
    )


def _run(run: Json, now: float) -> Json:
    """A run with its steps as rows: mark, duration, and a bar that shows when it was under way."""
    began = words.seconds_of(run["started"])
    starts = [words.seconds_of(step["started"]) or now for step in run["steps"]]
    ends = [
        start + step["seconds"] for start, step in zip(starts, run["steps"], strict=True) if step["started"]
    ]
    whole = max([run["seconds"], *(end - began for end in ends), 0.001])
    return {**run, "steps": [_step(step, began, whole) for step in run["steps"]]}


def _step(step: Json, began: float, whole: float) -> Json:
    start = max(0.0, words.seconds_of(step["started"]) - began) if step["started"] else 0.0
    left = min(100.0 * start / whole, 99.0)
    width = max(1.0, min(100.0 * step["seconds"] / whole, 100.0 - left)) if step["started"] else 0.0
    progress = step["progress"]
    return {
        **step,
        "mark": _MARKS.get(step["state"], "·"),
        "left": f"{left:.2f}",
        "width": f"{width:.2f}",
        "told": words.progress_text(progress) if step["state"] == "running" else "",
        "share": progress if step["state"] == "running" and progress and progress["total"] else None,
    }
