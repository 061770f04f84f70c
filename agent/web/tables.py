"""History, plans, processes and findings as text for a terminal; foreign text cannot steer it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agent.kit.clock import span
from agent.status.log import shown
from agent.web.words import short

Json = dict[str, Any]


def written(lines: Iterable[str]) -> str:
    """Lines, each with its end, and with control characters shown instead of sent."""
    return "".join(f"{shown(part)}\n" for line in lines for part in line.splitlines() or [""])


def history(told: Json) -> Iterator[str]:
    """Runs, failed syncs and commands of `exec`, newest first, a line each, and why it failed."""
    execs = [{**row, "reason": f"{row['program']} by {row['by']}: {row['result']}", "result": "exec"}
             for row in told["execs"]]  # fmt: skip
    rows = sorted(
        [*told["runs"], *told["syncs"], *execs], key=lambda row: str(row.get("started")), reverse=True
    )
    heading = ("STARTED", "APP", "VERSION", "COMMIT", "RESULT", "TOOK", "REASON")
    table = [
        (
            str(row.get("started") or ""),
            str(row.get("app") or "(no run)"),
            str(row.get("version") or "-"),
            short(row.get("commit")) or "-",
            str(row.get("result") or ""),
            _took(row.get("seconds")),
            _reason(row),
        )
        for row in rows
    ]
    yield from _columns([heading, *table])


def _reason(row: Json) -> str:
    failure = row.get("failure") or {}
    return ": ".join(str(failure[key]) for key in ("reason", "message") if failure.get(key)) or str(
        row.get("reason") or ""
    )


def stored(told: Json) -> Iterator[str]:
    """A line a release, and what the store takes."""
    table = [("RELEASE", "FILES", "SIZE", "ON DISK", "FOR")]
    for row in told["releases"]:
        uses = [f"{use['app']} {use['version']} {' '.join(use['is'])}".strip() for use in row["apps"]]
        sizes = str(row["files"]), _mib(row["bytes"]), _mib(row["disk"])
        table.append((row["release"], *sizes, ", ".join(uses) or "nobody"))
    yield from _columns(table)
    yield f"{_mib(told['disk'])} in all, {_mib(told['free'])} free"


def jobs(told: Json) -> Iterator[str]:
    """A line a run of a job."""
    heading = ("AT", "APP", "RUN", "CAUSE", "RESULT", "CODE", "TOOK", "REASON")
    table = [
        (
            str(row.get("started") or row.get("due") or ""),
            str(row.get("app")),
            str(row.get("id")),
            str(row.get("cause")),
            str(row.get("result")) + (f" {row['count']}x" if row["count"] > 1 else ""),
            str(row["code"] if row.get("code") is not None else "-"),
            _took(row.get("seconds")),
            _reason(row),
        )
        for row in told["jobs"]
    ]
    yield from _columns([heading, *table])


def processes(told: Json) -> Iterator[str]:
    """A line a process."""
    heading = ("APP", "#", "VERSION", "PID", "STATE", "UP", "PSS", "RSS", "CPU", "RESTARTS")
    table = [
        (
            str(row.get("app") or f"({row.get('name')})"),
            str(row["instance"]) if row.get("instance") is not None else "-",
            str(row.get("version") or "-"),
            str(row.get("pid")),
            str(row.get("state")),
            _took(row.get("uptime_seconds")),
            _mib(row.get("pss")),
            _mib(row.get("rss")),
            _took(row.get("cpu_seconds")),
            str(row.get("restarts") or 0),
        )
        for row in told["processes"]
    ]
    yield from _columns([heading, *table])


def findings(told: Json) -> Iterator[str]:
    """A line a finding with what to do, and what is waited for."""
    yield from _columns(
        [
            (
                str(found["verdict"]),
                str(found["subject"]),
                " -> ".join(str(text) for text in (found["told"], found.get("remedy")) if text),
            )
            for found in told["findings"]
        ]
    )
    yield ""
    yield "waiting for:" if told["waiting"] else "nothing is being waited for"
    for wait in told["waiting"]:
        since = f" since {wait['since']}" if wait["since"] else ""
        until = f" (until {wait['until']})" if wait["until"] else ""
        yield f"  {wait['app'] or 'agent'} {wait['what']}{since}: {wait['why']}{until}"


def plan(told: Json) -> Iterator[str]:
    """Each app with what would be done, the steps with reasons and needs, and how files would change."""
    yield f"at {short(told.get('commit'))}"
    for warning in told.get("warnings") or []:
        yield f"warning: {warning}"
    if told.get("paused"):
        yield f"updates are paused: {told['paused']}; after that:"
    for name, app in (told.get("apps") or {}).items():
        yield ""
        yield "  ".join(
            str(text) for text in (name, app["action"], app.get("version"), app["reason"]) if text
        )
        for step in app.get("steps") or []:
            after = f"  after {', '.join(step['needs'])}" if step["needs"] else ""
            yield f"  {step['name'].ljust(14)} {step['reason']}{after}".rstrip()
        for target, lines in (app.get("files") or {}).items():
            yield f"  {target}"
            yield from (f"    {line}" for line in lines)


def _columns(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    clean = [tuple(shown(cell) for cell in row) for row in table]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _took(seconds: float | None) -> str:
    return "-" if seconds is None else span(seconds)


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / (1 << 20):.1f} MiB"
