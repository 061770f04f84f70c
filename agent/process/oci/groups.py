"""The control groups that a runtime makes for its containers, in every tree that is mounted (cgroups(7)).

They have the names that `agent.process.cgroups` gives, so that a limit set there holds in the container. No
runtime is asked to remove them: it would take the count of kills along, and could be killed itself.
Everything here blocks for some small files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent.process.cgroups import MARK, OWN, directory_of, group_name, mounts

PROC = Path("/proc")


def path_of(app: str, child: str, box: str, proc: Path = PROC) -> str:
    """The cgroupsPath of a container: below our own groups; of version 2 beside our own.

    A relative one is relative to the runtime's own group in each tree of version 1. Raises OSError.
    """
    name = group_name(app, child, box)
    trees = list(_trees(proc))
    if trees and all(kind == "cgroup2" for kind, _, _ in trees):
        _, point, base = trees[0]
        return f"/{os.path.relpath(base / name, point)}"
    return name


def remove(app: str, child: str, box: str, proc: Path = PROC) -> None:
    """Remove the groups of a container whose processes are gone."""
    with contextlib.suppress(OSError):
        for _, _, base in _trees(proc):
            _remove(base / group_name(app, child, box))


def sweep(box: str, proc: Path = PROC) -> None:
    """Remove all groups without processes of one agent."""
    with contextlib.suppress(OSError):
        for _, _, base in _trees(proc):
            for path in base.glob(f"*{MARK}{box}"):
                _remove(path)


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):  # somebody is in it, or it is not there
        directory.rmdir()


def _trees(proc: Path) -> Iterator[tuple[str, Path, Path]]:
    """Kind, mount point, and the directory below which our containers' groups are. Raises OSError."""
    inside = {}
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            inside[name] = path
    for kind, point, root, options in mounts(proc):
        names = [""] if kind == "cgroup2" else [name for name in inside if name and name in options]
        for name in names[:1]:
            if name in inside:
                base = directory_of(point, root, inside[name])
                yield kind, point, base.parent if base.name == OWN else base
