"""A program's container: its bundle in the program's directory, and what is cleared away after it.

    DIRECTORY/.oci/ID/       working directory of the runtime, gone with the program's directory
        config.json          see `bundle`
        release, config      links: what the root is made of, read only and shared by all
        upper, work          what is written in the container, and overlayfs's own
        root                 where the root is mounted, in a mount namespace of the container's own; or a copy
        runtime.log, pid, state   of the runtime, see `agent.keeper.container`

Where overlayfs cannot be had (the data directory may lie on one itself, as in a container without a volume)
every start copies the release; the first start that finds so says why, and `lacking` has it then.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.domain.errors import OperatorNeeded, Permanent
from agent.keeper.protocol import ChildRequest
from agent.kit.files import remove_tree
from agent.process.bounds import Bounds
from agent.process.cgroups import MARK
from agent.process.oci import bundle, groups, root
from agent.process.oci import runtime as runtimes
from agent.process.oci.bundle import Program
from agent.process.oci.origin import Origin, origin

DIRECTORY = ".oci"  # as `agent.deploy.instance` knows it
NOTIFY = "/run/notify"  # where a program in it finds its NOTIFY_SOCKET
NAMES = ("resolv.conf", "hosts")  # of /etc: how names are found on this host's network
WEAK = ("PATH", "HOME", "USER", "LOGNAME")  # variables that a release may know better


@dataclass(slots=True)
class Host:
    """What is known here: the runtime that the settings name, and why overlayfs is `lacking`, or ""."""

    runtime: Path | None = None
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a program of an app.

    `release` and `config` are what the root is made of, the latter above; `dirs` are (path inside, path
    outside) of directories that outlive it. `given` are the names of the app's own variables. `apart`: it has
    a network of its own. `opened` are paths of this host that are seen in it, and whether they may be written
    there. `box` is in the names of its control groups. Where the agent is not root, the container's root is
    the agent's user.
    """

    host: Host
    app: str
    release: Path
    config: Path | None = None
    dirs: tuple[tuple[str, Path], ...] = ()
    given: frozenset[str] = frozenset()
    hostname: str = ""
    apart: bool = False
    opened: tuple[tuple[str, bool], ...] = ()
    box: str = ""

    async def furnish(self, request: ChildRequest, bounds: Bounds) -> ChildRequest:
        """Make the bundle of `request`; returns the request that starts it.

        Raises OperatorNeeded("ContainerNotPossible"), Permanent (BundleInvalid, CommandMissing), OSError.
        """
        return await asyncio.to_thread(self._furnish, request, bounds)

    async def clear(self, directory: Path, child: str) -> None:
        """Remove what is left of a container whose processes are gone: bundle and control groups."""
        await asyncio.to_thread(self._clear, directory, child)

    def _clear(self, directory: Path, child: str) -> None:
        groups.remove(self.app, child, self.box)
        remove_tree(place_of(directory, child))

    def _furnish(self, request: ChildRequest, bounds: Bounds) -> ChildRequest:
        if self.apart and request.notify.startswith("@"):
            raise OperatorNeeded(
                "ContainerNotPossible", "a program with a network of its own cannot be heard from here",
                remedy="take a data directory with a shorter path: the socket's name has 107 bytes at most",
            )  # fmt: skip
        runtime, rootless = runtimes.find(self.host.runtime), runtimes.rootless()
        found = origin(self.release)
        place = place_of(Path(request.directory), request.child)
        remove_tree(place)
        place.mkdir(parents=True, mode=0o700)
        layers = [path for path in (self.config, found.root) if path is not None]
        overlay = "" if self.host.lacking else root.overlay(place, layers, rootless=rootless)
        if self.host.lacking:
            root.copy(place, layers)
        program = self._program(request, bounds, found, rootless)
        grouped = runtime.makes_groups(limited=bounds.limited)
        group = groups.path_of(self.app, request.child, self.box) if grouped else ""
        document = bundle.config(program, group, os.uname().machine)
        (place / "config.json").write_text(json.dumps(document))
        return replace(
            request,
            argv=[],  # a keeper that knows nothing of containers starts nothing
            directory=str(place),
            uid=None,
            gid=None,
            umask=0o022,
            rlimits={},
            cgroups=[] if grouped else request.cgroups,
            confine={
                "namespaces": [*(("user",) * rootless), "pid", "mount", *(("net",) * self.apart)],
                "private": [],
                "keep": [],
                "root": rootless,
            },
            container={
                **runtime.asked(groups=grouped),
                "name": re.sub(r"[^A-Za-z0-9_.-]", "-", place.name),
                "descriptors": _descriptors(request),
                "overlay": overlay,
                **self._told(document, overlay),
            },
        )

    def _told(self, document: Mapping[str, Any], overlay: str) -> Mapping[str, Any]:
        """The parts of its isolation, in the words of those of programs on the host."""
        process = document["process"]
        held = ["container", *(("no_new_privs", "capabilities") if process["noNewPrivileges"] else ())]
        held += ["calls"] if "seccomp" in document["linux"] else []
        held += ["overlay"] if overlay else []
        lacking = {} if overlay else {"overlay": f"{self.host.lacking}; each start copies the release"}
        return {"held": held, "lacking": lacking}

    def _program(self, request: ChildRequest, bounds: Bounds, found: Origin, rootless: bool) -> Program:
        args = request.argv or list(found.args)
        if not args:
            raise Permanent(
                "CommandMissing", "neither the state nor the release says what to run",
                remedy="write run.command",
            )  # fmt: skip
        env = dict(request.environment)
        for name, value in found.env.items():
            if name not in self.given and (name in WEAK or name not in env):
                env[name] = value
        # As number 1 of a namespace it knows its own number, without which it would not take its sockets.
        served = bool(request.slots) and not request.adopt
        if served:
            names = ":".join(name for _, _, name in request.slots)
            env |= {"LISTEN_PID": "1", "LISTEN_FDS": str(len(request.slots)), "LISTEN_FDNAMES": names}
        if request.notify.startswith("/"):
            env["NOTIFY_SOCKET"] = NOTIFY
        binds = [(inside, str(outside), _options(outside, "rw")) for inside, outside in self.dirs]
        if request.notify.startswith("/"):  # which the keeper makes before it starts anybody
            binds.append((NOTIFY, request.notify, _options(Path(request.directory), "rw")))
        for path, writable in self.opened:
            if os.path.lexists(path):
                binds.append((path, path, _options(Path(path), "rw" if writable else "ro")))
        if not self.apart:
            files = [Path("/etc", name) for name in NAMES]
            binds += [(str(file), str(file), _options(file, "ro")) for file in files if file.is_file()]
        own = (0, 0) if rootless else (os.geteuid(), os.getegid())
        return Program(
            args=args,
            env=env,
            cwd=found.cwd or "/",
            hostname=self.hostname or found.hostname or self.app,
            uid=request.uid if request.uid is not None else own[0],
            gid=request.gid if request.gid is not None else own[1],
            groups=request.groups,
            umask=request.umask,
            rlimits=request.rlimits,
            limits=bounds.limits,
            tier=bounds.tier,
            binds=binds,
            own_pids=served,
            held=_capabilities(rootless),
            rootless=rootless,
        )


def place_of(directory: Path, child: str) -> Path:
    """Where the bundle of a child is, in the child's directory."""
    return directory / DIRECTORY / child.replace("/", MARK)  # as its control groups are called


def _descriptors(request: ChildRequest) -> int:
    return (0 if request.adopt else len(request.slots)) + request.announces


def _options(path: Path, access: str) -> list[str]:
    """How something is bound: what its own mount does not allow, nobody in a user namespace can."""
    flags = os.statvfs(path).f_flag
    barred = ["noexec"] if flags & os.ST_NOEXEC else []
    return ["ro" if flags & os.ST_RDONLY else access, *barred]


def _capabilities(rootless: bool, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Numbers of those that we, and so whom we start, can have: all, in a user namespace."""
    if rootless:
        return tuple(range(int((proc / "sys/kernel/cap_last_cap").read_text()) + 1))
    fields: Mapping[str, str] = dict(
        line.split(":\t", 1) for line in (proc / "self/status").read_text().splitlines() if ":\t" in line
    )
    held = int(fields.get("CapBnd", "0"), 16)
    return tuple(n for n in range(64) if held >> n & 1)
