"""The runtime that makes containers here: which one it is, how it is asked, and what its failures mean.

Only limits need control groups of the runtime's making, so without any it is kept from making some:

| | runc | crun |
|---|---|---|
| limits, as root | makes the groups, with the names and limits that they have already | |
| else | finds /sys/fs/cgroup read only, and `--rootless` lets it go on | is told to leave groups alone |

In the second row the container's init is in the groups with the limits, and so is all that comes from it.
crun refuses hosts that have both versions of control groups even when it is to make none: it sees neither.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.keeper.client import SpawnFailed

NAMES = ("runc", "crun")  # in this order, where none is named
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = "confine namespaces"  # the stage of a start, as the keeper calls it


@dataclass(frozen=True, slots=True)
class Runtime:
    """One that is installed."""

    path: str
    crun: bool

    def makes_groups(self, *, limited: bool) -> bool:
        """Whether it makes the control groups of a container."""
        return limited and not self.crun and not rootless()

    def asked(self, *, groups: bool) -> Mapping[str, Any]:
        """The parts of a `ChildRequest`'s container that say how it is run."""
        if groups:
            return {"runtime": self.path, "options": [], "groups": ""}
        if self.crun:
            return {"runtime": self.path, "options": ["--cgroup-manager=disabled"], "groups": "hidden"}
        return {"runtime": self.path, "options": ["--rootless=true"], "groups": "read-only"}


def rootless() -> bool:
    """Whether containers are made in a user namespace, because the agent is not root."""
    return os.geteuid() != 0


def find(named: Path | None) -> Runtime:
    """The one that the settings name, or the first that is installed. Raises OperatorNeeded."""
    if named is not None:
        return Runtime(str(named), "crun" in named.name)
    for name in NAMES:
        if (path := shutil.which(name, path=PATH)) is not None:
            return Runtime(path, name == "crun")
    raise OperatorNeeded(
        "ContainerNotPossible", f"neither {' nor '.join(NAMES)} is installed here",
        remedy="install one (Debian: apt-get install runc), or name another with --container-runtime",
    )  # fmt: skip


def failure(error: SpawnFailed) -> Permanent | OperatorNeeded | Transient:
    """What it means that no container could be started."""
    words = error.text.lower()
    about_program = "exec:" in words or "executable" in words
    if about_program and ("no such file" in words or "not found" in words):
        return Permanent(
            "CommandNotFound", f"there is no such program in the container: {error.text}",
            remedy="compare with what was unpacked: the release is the container's root",
        )  # fmt: skip
    if about_program and "permission denied" in words:
        return Permanent(
            "CommandNotExecutable", f"it may not be executed: {error.text}",
            remedy="set its executable bit, and let its user pass every directory above it",
        )  # fmt: skip
    if error.errno in (errno.ETIMEDOUT, errno.EINTR):  # a busy machine, or one short of memory
        return Transient("NoResources", f"the container cannot be started now: {error.text}")
    if error.stage == NAMESPACES and rootless():
        return OperatorNeeded(
            "ContainerNotPossible",
            f"only root can start containers here: others are refused namespaces of their own: {error.text}",
            remedy="run the agent as root, or allow them (sysctl user.max_user_namespaces, on Ubuntu "
            "kernel.apparmor_restrict_unprivileged_userns, RestrictNamespaces), or leave run.driver out",
        )  # fmt: skip
    return OperatorNeeded(
        "ContainerNotPossible", f"the container cannot be started: {error.text}",
        remedy="see docs/containers.md for what it takes, or leave run.driver out",
    )  # fmt: skip
