"""How the command line writes things: times, sizes, names, colours. Colours vanish when piped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from agent.kit.clock import span

Json = Mapping[str, Any]

MISTAKES = 30  # of a state, shown at most

# What apps and Git servers wrote ends up on somebody's terminal: no control character gets there.
_CONTROL = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_COLOURS = {
    "running": "green",
    "placed": "green",
    "ready": "green",
    "working": "green",
    "succeeded": "green",
    "unchanged": "green",
    "updating": "cyan",
    "canary": "cyan",
    "probation": "cyan",
    "pending": "bright_black",
    "skipped": "bright_black",
    "undone": "bright_black",
    "cancelled": "yellow",
    "superseded": "yellow",
    "interrupted": "yellow",
    "later": "yellow",
    "degraded": "yellow",
    "maintenance": "yellow",
    "rolled-back": "red",
    "failed": "red",
}


def clean(text: object) -> str:
    """Foreign text without control characters; tabs and line ends stay."""
    return _CONTROL.sub("", str(text))


def word(state: object, width: int = 0) -> str:
    """A state or result in its colour."""
    text = clean(state)
    return click.style(text.ljust(width), fg=_COLOURS.get(text))


def dim(text: str) -> str:
    """Of lesser importance."""
    return click.style(text, fg="bright_black")


def bad(text: str) -> str:
    """Wrong."""
    return click.style(text, fg="red")


def commit(value: object) -> str:
    """A commit, short."""
    return clean(value or "")[:10]


def digest(value: object) -> str:
    """A digest, short, as in sha256:9f86d081aa…, with the algorithm."""
    text = clean(value or "")
    algorithm, colon, hexes = text.partition(":")
    return f"{algorithm}{colon}{hexes[:10]}…" if len(hexes) > 10 else text


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def amount(done: float, total: float, unit: str) -> str:
    """Progress in its unit: 12.3 MiB of 27.0 MiB."""
    show = size if unit == "bytes" else (lambda count: f"{count:g}")
    tail = "" if unit == "bytes" else f" {clean(unit)}"
    return f"{show(done)} of {show(total)}{tail}" if total else f"{show(done)}{tail}"


def epoch(stamp: object) -> float:
    """RFC 3339 as seconds since the epoch; 0 for what is none."""
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return 0.0


def ago(stamp: object) -> str:
    """How long ago; "" for what is no time."""
    at = epoch(stamp)
    return span(max(0.0, time.time() - at)) + " ago" if at else ""


def local(stamp: object) -> str:
    """A time on this machine's clock, to the second."""
    at = epoch(stamp)
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def seconds(value: object) -> str:
    """A duration; "" for none."""
    return span(float(value)) if isinstance(value, int | float) else ""


def print_json(value: object) -> None:
    """For programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def failure_lines(failure: Json, log_lines: int = 10) -> list[str]:
    """A failure for people: what, where, what to do, and the last lines that explain it."""
    where = clean(failure.get("where") or "")
    lines = [f"{bad(clean(failure.get('reason', '')))}: {clean(failure.get('message', ''))}"]
    if where:
        lines.append(f"where   {where}")
    if failure.get("remedy"):
        lines.append(f"remedy  {clean(failure['remedy'])}")
    told = failure.get("log") or []
    if failure.get("reason") == "StateInvalid":  # mistakes, not a program's output: the first ones count
        lines += [clean(line) for line in told[: log_lines and MISTAKES]]
        if len(told) > MISTAKES:
            lines.append(dim(f"and {len(told) - MISTAKES} more; see emptybox validate"))
        return lines
    return lines + [dim(f"| {clean(line)}") for line in _last(told, log_lines)]


def _last(lines: Sequence[str], count: int) -> Sequence[str]:
    return lines[max(0, len(lines) - count) :]
