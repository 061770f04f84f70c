"""Verified webhook deliveries a second against the real agent, and how many looks at Git they led to."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import proc, webhook_client
from benchmarks.report import Report
from benchmarks.rig import Rig, rig

SECONDS = 5.0
CONNECTIONS = 8


async def run(seconds: float = SECONDS) -> Report:
    """Measure."""
    async with rig({}, poll="1h") as stand:
        commit = await stand.publish('{"schema": 1, "apps": {}}\n', "nothing")
        await stand.start_agent()
        agent = int((await stand.status())["agent"]["pid"])
        syncs = await _syncs(stand)
        before = proc.cost(agent)
        found = await _send(stand, commit, seconds)
        cpu = proc.cost(agent).cpu - before.cpu

        async def idle() -> bool:
            source = (await stand.status())["source"]
            return not source["running"] and source["commit"] == commit

        await asyncio.sleep(2.0)  # a sync that waits for its second
        await stand.until(idle)
        made = await _syncs(stand) - syncs
    accepted = found["answers"].get("202", 0)
    others = {status: count for status, count in found["answers"].items() if status != "202"}
    report = Report(f"webhooks of 8 kB, {CONNECTIONS} connections, {found['seconds']:.1f} s")
    report.row("verified and accepted", f"{accepted / found['seconds']:,.0f}", "a second")
    report.row("  in all", f"{accepted:,}", f"others by status: {others}" if others else "")
    report.row("  CPU of the agent", f"{1e6 * cpu / max(accepted, 1):.0f} µs", "each")
    report.row("syncs they made", f"{made}", "goal: at most two for the pushes of one second")
    report.data = {
        "seconds": found["seconds"],
        "accepted": accepted,
        "per_second": accepted / found["seconds"],
        "other_answers": others,
        "agent_cpu_seconds": cpu,
        "syncs": made,
    }
    return report


async def _send(stand: Rig, commit: str, seconds: float) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(webhook_client.__file__)), "127.0.0.1",
        str(urlsplit(stand.admin).port), str(seconds), str(CONNECTIONS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    given = {"secret": stand.secret, "repository": stand.repository, "commit": commit}
    out, _ = await process.communicate(json.dumps(given).encode())
    found: dict[str, Any] = json.loads(out)
    return found


async def _syncs(stand: Rig) -> int:
    """Syncs that ended so far, from /metrics."""
    async with stand.session.get(f"{stand.admin}/metrics") as answer:
        text = await answer.text()
    return sum(int(float(n)) for n in re.findall(r"^emptybox_syncs_total\{.*\} (\S+)$", text, re.MULTILINE))
