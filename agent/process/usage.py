"""What processes use, read from /proc (proc(5)): memory and processor time, a session at a time.

The keeper starts every program in a session of its own, so a session is a program with all it started.
Everything here blocks for many small files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Usage:
    """Of one or more processes: bytes and seconds. `pss` is None when one of them may not be looked into."""

    processes: int = 0
    rss: int = 0
    pss: int | None = 0
    cpu_seconds: float = 0.0

    def add(self, rss: int, pss: int | None, cpu_seconds: float) -> None:
        """Another process."""
        self.processes += 1
        self.rss += rss
        self.pss = None if pss is None or self.pss is None else self.pss + pss
        self.cpu_seconds += cpu_seconds


def usage(
    leaders: Iterable[int], alone: Iterable[int] = (), proc: Path = Path("/proc")
) -> Mapping[int, Usage]:
    """The use of each leader's whole session, and of the processes in `alone` by themselves.

    A process that `alone` names counts the children of its own session as itself. Who is gone is left out.
    """
    single, found = set(alone), dict[int, Usage]()
    sessions = {}
    for pid in leaders:
        with contextlib.suppress(OSError):
            sessions[os.getsid(pid)] = pid
            for child in (proc / f"{pid}/task/{pid}/children").read_text().split():
                sessions.setdefault(os.getsid(int(child)), pid)  # a container's program has its own
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            stat = (proc / name / "stat").read_bytes().rpartition(b")")[2].split()
            parent, session, pid = int(stat[1]), int(stat[3]), int(name)
            if pid in single:
                owner = pid
            elif parent in single and session == os.getsid(parent):
                owner = parent
            elif session in sessions:
                owner = sessions[session]
            else:
                continue
            rss = int((proc / name / "statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            continue
        cpu = (int(stat[11]) + int(stat[12])) / _TICKS
        found.setdefault(owner, Usage()).add(rss, _pss(proc / name), cpu)
    return found


def _pss(process: Path) -> int | None:
    try:
        with open(process / "smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        return None
    return None
