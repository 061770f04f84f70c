"""Whether there is memory for a second child beside the first: read from the kernel, guessed from nothing.

What may still be used is the least of what the machine has available and what each memory cgroup above
this process leaves (its limit less its use, the page cache it can drop counted as free); cgroups(7),
version 2 and 1. What a second child will need is what the first one's process group has for itself now:
anonymous and shared memory; the program's own pages are shared between the two.

Everything here blocks for a few small files.
"""

from __future__ import annotations

import os
from pathlib import Path

AMPLE = 2 << 30  # bytes: with more than this left nobody looks closer
MARGIN = 1.25  # of what the first child uses: a new version may be larger
CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60


def shortage(pid: int, proc: Path = Path("/proc"), cgroups: Path = CGROUPS, count: int = 1) -> str:
    """Why `count` more like the child of `pid` do not fit, in words; "" when they do."""
    left = available(proc, cgroups)
    if left >= AMPLE:
        return ""
    used = used_by_group(pid, proc) * count
    if left >= used * MARGIN:
        return ""
    return f"the running version uses {_mib(used)}, {_mib(left)} are left"


def available(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> int:
    """Bytes that this process and its siblings may still use."""
    left = [_machine(proc)]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            left += _levels(cgroups / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")
        elif controllers == "":
            for root in (cgroups, cgroups / "unified"):
                left += _levels(root, path, "memory.max", "memory.current")
    return max(0, min(left))


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return _NO_LIMIT


def _levels(root: Path, path: str, limit_name: str, usage_name: str) -> list[int]:
    """What each cgroup from `path` up to the root leaves.

    In a container the path may be another namespace's: then the root is its own cgroup, and is read.
    """
    found = []
    inner = Path() if ".." in path.split("/") else Path(path.lstrip("/"))
    for level in (inner, *inner.parents):
        directory = root / level
        limit = _number(directory / limit_name)
        usage = _number(directory / usage_name) if limit is not None and limit < _NO_LIMIT else None
        if limit is None or usage is None:
            continue
        left = limit - usage
        found.append(left if left >= AMPLE else left + _droppable(directory / "memory.stat"))
    return found


def _number(path: Path) -> int | None:
    """A cgroup file's number; "max" is no limit. None when there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return _NO_LIMIT if text == "max" else int(text) if text.isdigit() else None


def _droppable(stat: Path) -> int:
    """Page cache that the kernel drops before it runs out (inactive_file, with its descendants in v1)."""
    try:
        pairs = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", "0")))


def used_by_group(pid: int, proc: Path = Path("/proc")) -> int:
    """Bytes of anonymous and shared memory of the process group that `pid` leads; 0 when it is gone."""
    used = 0
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            stat = (proc / name / "stat").read_bytes()
            if int(stat.rpartition(b")")[2].split()[2]) != pid:
                continue
            status = (proc / name / "status").read_text()
        except (OSError, IndexError, ValueError):
            continue
        used += sum(
            int(line.split()[1]) << 10
            for line in status.splitlines()
            if line.startswith(("RssAnon:", "RssShmem:"))
        )
    return used


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
