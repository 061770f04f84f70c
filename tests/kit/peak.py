"""The most memory a process has had, for children of tests, where getrusage(2) would not do.

Its ru_maxrss is handed on through vfork and exec: a child begins with the peak of the test's own process.
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """This process's, in MiB (VmHWM of proc(5): of this program alone)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024
