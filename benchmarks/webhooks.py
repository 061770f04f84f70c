"""Verified webhook deliveries a second against the real agent while a run goes on, and the syncs they made.

The load comes from a program in C (`servers/flood.c`), so that what is measured is the agent and not the
sender. Every delivery announces the commit that is being deployed, whose migration lasts as long as the load.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.cli.demo.archives import archive
from benchmarks import proc
from benchmarks.report import Report
from benchmarks.rig import Rig, rig

SECONDS = 5.0
CONNECTIONS = 8
SIZE = 8192
GOAL_RATE, GOAL_SYNCS = 1500.0, 2
SOURCE = Path(__file__).parent / "servers" / "flood.c"


async def run(seconds: float = SECONDS) -> Report:
    """Measure."""
    builds = {version: archive(version) for version in ("one", "two")}
    async with rig({f"web-{v}.tar.gz": data for v, data in builds.items()}, poll="1h") as stand:
        await stand.publish(_state(stand, "one", builds), "one")
        await stand.start_agent()
        await stand.proven("one")
        agent = int((await stand.status())["agent"]["pid"])
        commit = await stand.publish(_state(stand, "two", builds, migration=seconds + 1.0), "two")
        syncs = await _syncs(stand)
        before = proc.cost(agent)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(stand, commit, seconds))
            await asyncio.sleep(seconds - 0.5)
            step = await _running_step(stand)
        found, cpu = sending.result(), proc.cost(agent).cpu - before.cpu
        await stand.proven("two")
        made = await _syncs(stand) - syncs
    return _report(found, cpu, made, step)


def _report(found: dict[str, Any], cpu: float, made: int, step: str) -> Report:
    answers = found["answers"]
    verified = sum(count for status, count in answers.items() if status in ("200", "202"))
    others = {status: count for status, count in answers.items() if status not in ("200", "202")}
    rate = verified / found["seconds"]
    title = (
        f"webhooks of 8 kB, {CONNECTIONS} connections, {found['seconds']:.1f} s, the run at its step {step!r}"
    )
    report = Report(title)
    report.row("verified and answered", f"{rate:,.0f}", f"a second (goal: {GOAL_RATE:,.0f})")
    report.row("  in all", f"{verified:,}", f"others by status: {others}" if others else "")
    report.row("  CPU of the agent", f"{1e6 * cpu / max(verified, 1):.0f} µs", "each")
    report.row("syncs they made", f"{made}", f"goal: at most {GOAL_SYNCS}")
    report.data = {
        "seconds": found["seconds"],
        "verified": verified,
        "per_second": rate,
        "other_answers": others,
        "agent_cpu_seconds": cpu,
        "syncs": made,
        "step": step,
        "reached": rate >= GOAL_RATE and made <= GOAL_SYNCS and not others and step == "migrate",
    }
    return report


def _state(stand: Rig, version: str, builds: dict[str, bytes], migration: float = 0.0) -> str:
    checksum = hashlib.sha256(builds[version]).hexdigest()
    state = json.loads(stand.state(version, checksum, interval="100ms", probation="500ms"))
    if migration:
        state["apps"]["web"]["migrate"] = [{"name": "long", "command": ["/bin/sleep", f"{migration:.1f}"]}]
    return json.dumps(state)


async def _running_step(stand: Rig) -> str:
    run = (await stand.status())["apps"]["web"]["run"] or {"steps": []}
    return next((step["name"] for step in run["steps"] if step["state"] == "running"), "none")


async def _send(stand: Rig, commit: str, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        program, head, body = directory / "flood", directory / "head", directory / "body"
        await _done("gcc", "-O2", "-D_GNU_SOURCE", "-pthread", "-o", str(program), str(SOURCE))
        text = _body(stand, commit)
        body.write_bytes(text)
        head.write_text(
            "POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\nX-Gitea-Event: push\r\nX-Gitea-Signature: "
            f"{hmac.new(stand.secret.encode(), text, hashlib.sha256).hexdigest()}\r\nX-Gitea-Delivery: "
        )
        port = str(urlsplit(stand.admin).port)
        given = ["127.0.0.1", port, str(seconds), str(CONNECTIONS), str(head), str(body)]
        found: dict[str, Any] = json.loads(await _done(str(program), *given))
        return found


def _body(stand: Rig, commit: str) -> bytes:
    push = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": commit,
        "repository": {"full_name": "bench/state", "clone_url": stand.repository},
        "padding": "",
    }
    push["padding"] = "x" * (SIZE - len(json.dumps(push)))
    return json.dumps(push).encode()


async def _done(*words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}")
    return out


async def _syncs(stand: Rig) -> int:
    """Syncs that ended so far, from /metrics."""
    async with stand.session.get(f"{stand.admin}/metrics") as answer:
        text = await answer.text()
    return sum(int(float(n)) for n in re.findall(r"^emptybox_syncs_total\{.*\} (\S+)$", text, re.MULTILINE))
