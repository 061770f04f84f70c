"""An agent that does not answer, looked at from outside: from its lock's pid and proc(5). It blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.doctor.findings import Finding, Verdict
from agent.kit.clock import span

SHOWN_MAX = 10  # programs
STATES = {
    "T": "it is stopped by a signal",
    "t": "a debugger holds it",
    "R": "it is busy",
    "S": "it waits for something",
    "D": "it waits for a disk or another device",
    "Z": "it has ended, and its keeper has not noticed",
}


def silence(lock: Path) -> Iterator[Finding]:
    """What can be said of the agent whose pid `lock` holds, and of its keeper; nothing if there is none."""
    with suppress(OSError, ValueError, IndexError):
        agent = int(lock.read_text())
        state, keeper, _ = _stat(agent)
        told = f"the agent (pid {agent}) is there and does not answer: {STATES.get(state, f'state {state}')}"
        remedy = (
            f"wait a minute: its keeper (pid {keeper}) ends an agent that stays silent and starts another\n"
            f"or do so now: kill -9 {agent}; neither touches what serves\n"
            f"its log says where it hung after: kill -USR2 {agent}"
        )
        yield Finding("agent", Verdict.BAD, told, remedy)
        yield _keeper(keeper, agent)


def _keeper(keeper: int, agent: int) -> Finding:
    state, _, born = _stat(keeper)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - born
    programs = [pid for pid in _children(keeper) if pid != agent and _command(pid) != _command(keeper)]
    shown = ", ".join(f"{_command(pid)} (pid {pid})" for pid in programs[:SHOWN_MAX])
    more = len(programs) - SHOWN_MAX
    told = f"pid {keeper}, for {span(age)}, keeps running: {shown or 'nothing'}"
    told += f" and {more} more" if more > 0 else ""
    if state in "Tt":
        remedy = f"let it go on: kill -CONT {keeper}"
        return Finding("keeper", Verdict.BAD, f"{told}; {STATES[state]}", remedy)
    return Finding("keeper", Verdict.OK, told)


def _stat(pid: int) -> tuple[str, int, float]:
    """State, parent, and when it began in seconds since the machine did. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError, IndexError):
            if name.isdigit() and _stat(int(name))[1] == pid:
                found.append(int(name))
    return sorted(found)


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words)[:60].strip()
    return "?"
