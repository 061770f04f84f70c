"""What a running box costs, and whether that grows: memory, descriptors, threads, processes, disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from statistics import median

from benchmarks.proc import children, pss
from tests.kit.proc import agent_below, facts

Sample = dict[str, float]

# By how much the last quarter may be above the one before: of it, and in its own unit.
MORE, SLACK = 0.03, {"MiB": 1.0, "KiB": 64.0, "": 1.0}
TABLES = ("runs", "steps", "syncs", "marks", "quarantine", "migrations", "facts", "letters")


def sample(keeper: int, data: Path) -> Sample:
    """How it is now, while nothing is under way. Keys end with their unit, if they have one."""
    agent = agent_below(keeper)
    found: Sample = {}
    scribes = [pid for pid in children(keeper) if os.getsid(pid) == os.getsid(keeper) and pid != agent]
    for name, pid in (("keeper", keeper), ("agent", agent), *(("scribe", pid) for pid in scribes)):
        found[f"{name} PSS MiB"] = round(pss(pid), 2)
        found[f"{name} RSS MiB"] = round(int(facts(pid)["VmRSS"].split()[0]) / 1024, 2)
        found[f"{name} descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        found[f"{name} threads"] = int(facts(pid)["Threads"])
    found["processes"] = len(_below(keeper))
    files, size = _disk(data)
    found["files on disk"], found["disk KiB"] = files, size / 1024
    found["journal KiB"] = (data / "journal.db").stat().st_size / 1024
    with closing(sqlite3.connect(f"file:{data}/journal.db?mode=ro", uri=True)) as connection:
        for table in TABLES:
            with suppress(sqlite3.OperationalError):
                (found[f"rows of {table}"],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return found


def quarters(samples: list[Sample]) -> dict[str, list[float]]:
    """The medians of each quarter, by what was measured."""
    size = len(samples) / 4
    parts = [samples[round(n * size) : round((n + 1) * size)] for n in range(4)]
    names = dict.fromkeys(name for one in samples for name in one)
    return {name: [median(_values(part, name)) for part in parts] for name in names}


def grown(medians: dict[str, list[float]]) -> list[str]:
    """What is more in the last quarter than in the one before."""
    found = []
    for name, (*_, third, last) in medians.items():
        unit = name.rpartition(" ")[2] if name.endswith("iB") else ""
        if last > third * (1 + MORE) + SLACK[unit]:
            found.append(f"{name}: {third:g}, then {last:g}")
    return found


def told(medians: dict[str, list[float]]) -> str:
    """A table."""
    lines = [f"{'':24}" + "".join(f"{f'quarter {n}':>12}" for n in range(1, 5))]
    lines += [f"{name:24}" + "".join(f"{value:12.1f}" for value in each) for name, each in medians.items()]
    return "\n".join(lines)


def _values(part: Iterable[Sample], name: str) -> list[float]:
    return [one.get(name, 0.0) for one in part] or [0.0]


def _below(keeper: int) -> set[int]:
    found, front = set(), {keeper}
    while front:
        found |= front
        front = {child for pid in front for child in _children(pid)} - found
    return found


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return list(children(pid))
    return []


def _disk(data: Path) -> tuple[int, int]:
    """Files and directories, and bytes on the disk; each inode once."""
    seen: dict[int, int] = {}
    for directory, names, files in os.walk(data):
        for name in names + files:
            with suppress(FileNotFoundError):
                info = os.lstat(os.path.join(directory, name))
                seen[info.st_ino] = info.st_blocks * 512
    return len(seen), sum(seen.values())
