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
import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.keeper.client import SpawnFailed
from agent.keeper.protocol import ChildRequest
from agent.kit.files import remove_tree
from agent.process.bounds import Bounds
from agent.process.cgroups import MARK
from agent.process.oci import bundle, groups
from agent.process.oci.bundle import Program
from agent.process.oci.origin import Origin, origin

DIRECTORY = ".oci"  # as `agent.deploy.instance` knows it
RUNTIME = "runc"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMES = ("resolv.conf", "hosts")  # of /etc: how names are found on this host's network
WEAK = ("PATH", "HOME", "USER", "LOGNAME")  # variables that a release may know better
COPY_MAX = 600.0  # seconds


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
    a network of its own. Nothing here is for an agent that is not root.
    """

    host: Host
    app: str
    release: Path
    config: Path | None = None
    dirs: tuple[tuple[str, Path], ...] = ()
    given: frozenset[str] = frozenset()
    hostname: str = ""
    apart: bool = False

    async def furnish(self, request: ChildRequest, bounds: Bounds) -> ChildRequest:
        """Make the bundle of `request`; returns the request that starts it.

        Raises OperatorNeeded("ContainerNotPossible"), Permanent (BundleInvalid, CommandMissing), OSError.
        """
        return await asyncio.to_thread(self._furnish, request, bounds)

    async def clear(self, directory: Path, child: str) -> None:
        """Remove what is left of a container whose processes are gone: bundle and control groups."""
        await asyncio.to_thread(self._clear, directory, child)

    def _clear(self, directory: Path, child: str) -> None:
        groups.remove(self.app, child)
        remove_tree(_place(directory, child))

    def _furnish(self, request: ChildRequest, bounds: Bounds) -> ChildRequest:
        runtime = _runtime(self.host.runtime)
        found = origin(self.release)
        place = _place(Path(request.directory), request.child)
        remove_tree(place)
        place.mkdir(parents=True, mode=0o700)
        layers = [path for path in (self.config, found.root) if path is not None]
        overlay = "" if self.host.lacking else _overlay(place, layers)
        if self.host.lacking:
            _copy(place, layers)
        program = self._program(request, bounds, found)
        document = bundle.config(program, groups.path_of(self.app, request.child), os.uname().machine)
        (place / "config.json").write_text(json.dumps(document))
        return replace(
            request,
            argv=[],  # a keeper that knows nothing of containers starts nothing
            directory=str(place),
            uid=None,
            gid=None,
            umask=0o022,
            rlimits={},
            cgroups=[],
            confine={
                "namespaces": ["pid", "mount", *(("net",) * self.apart)],
                "private": [],
                "keep": [],
            },
            container={
                "runtime": runtime,
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

    def _program(self, request: ChildRequest, bounds: Bounds, found: Origin) -> Program:
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
        binds = [(inside, str(outside), True) for inside, outside in self.dirs]
        if not self.apart:
            binds += [(f"/etc/{name}", f"/etc/{name}", False) for name in NAMES if _is_file(f"/etc/{name}")]
        return Program(
            args=args,
            env=env,
            cwd=found.cwd or "/",
            hostname=self.hostname or found.hostname or self.app,
            uid=request.uid if request.uid is not None else os.geteuid(),
            gid=request.gid if request.gid is not None else os.getegid(),
            groups=request.groups,
            umask=request.umask,
            rlimits=request.rlimits,
            limits=bounds.limits,
            tier=bounds.tier,
            binds=binds,
            own_pids=served,
            held=_capabilities(),
        )

    def failure(self, error: SpawnFailed) -> Permanent | OperatorNeeded | Transient:
        """What it means that no container could be started."""
        words = error.text.lower()
        if "exec:" in words and ("no such file" in words or "not found" in words):
            return Permanent(
                "CommandNotFound", f"there is no such program in the container: {error.text}",
                remedy="compare with what was unpacked: the release is the container's root",
            )  # fmt: skip
        if "exec:" in words and "permission denied" in words:
            return Permanent(
                "CommandNotExecutable", f"it may not be executed: {error.text}",
                remedy="set its executable bit, and let its user pass every directory above it",
            )  # fmt: skip
        if error.errno in (errno.ETIMEDOUT, errno.EINTR):  # a busy machine, or one short of memory
            return Transient("NoResources", f"the container cannot be started now: {error.text}")
        return OperatorNeeded(
            "ContainerNotPossible", f"the container cannot be started: {error.text}",
            remedy="see docs/containers.md for what it takes, or leave run.driver out",
        )  # fmt: skip


def _place(directory: Path, child: str) -> Path:
    return directory / DIRECTORY / child.replace("/", MARK)  # as its control groups are called


def _runtime(named: Path | None) -> str:
    """The path of the runtime. Raises OperatorNeeded."""
    if os.geteuid() != 0:
        raise OperatorNeeded(
            "ContainerNotPossible", "only an agent that is root can start containers",
            remedy="run the agent as root, or leave run.driver out",
        )  # fmt: skip
    if named is not None:
        return str(named)
    found = shutil.which(RUNTIME, path=PATH)
    if found is None:
        raise OperatorNeeded(
            "ContainerNotPossible", f"{RUNTIME} is not installed here",
            remedy="install it (Debian: apt-get install runc), or name another with --container-runtime",
        )  # fmt: skip
    return found


def _overlay(place: Path, layers: Sequence[Path]) -> str:
    """Have ready what the root is mounted from; returns the options, with paths relative to `place`."""
    for number, layer in enumerate(layers):
        os.symlink(layer, place / f"layer{number}")
    for name in (bundle.ROOT, "work"):
        (place / name).mkdir(mode=0o755)
    _make_upper(place / "upper")
    lower = ":".join(f"layer{number}" for number in range(len(layers)))
    return f"lowerdir={lower},upperdir=upper,workdir=work"


def _make_upper(path: Path) -> None:
    """What a root has besides its layers: programs expect a /tmp."""
    path.mkdir(mode=0o755)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)


def _copy(place: Path, layers: Sequence[Path]) -> None:
    """Make the root a copy of all layers, the lowest first. Raises OSError."""
    root = place / bundle.ROOT
    _make_upper(root)
    for layer in reversed(layers):
        try:
            subprocess.run(
                ["cp", "-a", f"{os.path.realpath(layer)}/.", str(root)],
                check=True, timeout=COPY_MAX, stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            raise OSError(0, f"the release cannot be copied: {error}", str(root)) from None
    root.chmod(0o755)


def _descriptors(request: ChildRequest) -> int:
    return (0 if request.adopt else len(request.slots)) + request.announces


def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def _capabilities(proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Numbers of those that we, and so whom we start, can have."""
    fields: Mapping[str, str] = dict(
        line.split(":\t", 1) for line in (proc / "self/status").read_text().splitlines() if ":\t" in line
    )
    held = int(fields.get("CapBnd", "0"), 16)
    return tuple(n for n in range(64) if held >> n & 1)
