"""What a process costs, read from proc(5)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds and wake-ups of all threads since they began, and when that was read (monotonic)."""

    at: float
    cpu: float
    wakeups: int


@dataclass(frozen=True, slots=True)
class Idle:
    """What a process cost over a while: CPU in percent of one core, wake-ups a second, PSS in MiB."""

    cpu: float
    wakeups: float
    pss: float

    def __add__(self, other: Idle) -> Idle:
        return Idle(self.cpu + other.cpu, self.wakeups + other.wakeups, self.pss + other.pss)


def cost(pid: int) -> Cost:
    """So far. A wake-up is a voluntary context switch: the end of a sleep, whoever woke it."""
    cpu = wakeups = 0
    for thread in (Path("/proc") / str(pid) / "task").iterdir():
        cpu += int((thread / "schedstat").read_text().split()[0])
        wakeups += int(_field(thread / "status", "voluntary_ctxt_switches"))
    return Cost(time.monotonic(), cpu / 1e9, wakeups)


def between(pid: int, before: Cost) -> Idle:
    """What a process cost since `before`."""
    after = cost(pid)
    seconds = after.at - before.at
    return Idle(
        100 * (after.cpu - before.cpu) / seconds, (after.wakeups - before.wakeups) / seconds, pss(pid)
    )


def pss(pid: int) -> float:
    """Proportional set size in MiB: its own pages, and its share of those it shares."""
    return int(_field(Path("/proc") / str(pid) / "smaps_rollup", "Pss").split()[0]) / 1024


def children(pid: int) -> Iterator[int]:
    """Direct children."""
    for thread in (Path("/proc") / str(pid) / "task").iterdir():
        yield from map(int, (thread / "children").read_text().split())


def started(pid: int) -> Iterator[int]:
    """Direct children that run another program, and not a copy of their parent's."""
    for child in children(pid):
        with contextlib.suppress(OSError):  # it has ended
            if _command(child) != _command(pid):
                yield child


def _command(pid: int) -> bytes:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes()


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise KeyError(name)
