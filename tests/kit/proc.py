"""What the kernel says of processes: proc(5)."""

from __future__ import annotations

from pathlib import Path


def facts(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def writable(pid: int) -> set[str]:
    """Where a process's mounts are writable, but for the kernel's own file systems."""
    found = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        place, options = line.split()[4:6]
        if "rw" in options.split(",") and not place.startswith(("/proc", "/dev", "/sys")):
            found.add(place)
    return found


def agent_below(first: int) -> int:
    """The agent's pid, from its keeper's. Raises StopIteration while there is none."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return next(int(pid) for pid in children if b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes())
