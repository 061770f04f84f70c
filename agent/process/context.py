"""Who a program of an app runs as, where, and with what: said once, used for children and commands."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.keeper.client import SpawnFailed
from agent.keeper.protocol import ChildRecord, ChildRequest
from agent.process.bounds import Bounds
from agent.process.keepers import Keeper
from agent.process.users import User
from agent.process.voice import SILENT, Voice

if TYPE_CHECKING:  # imported for whoever has containers only
    from agent.process.oci.container import Container

_SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY}


@dataclass(frozen=True, slots=True)
class ChildContext:
    """Everything about a program of an app but the program itself.

    `directory` is where it starts, `environment` all of its environment, `prefix` heads its lines in
    the output ("" = the app's name), `note` is what the keeper remembers with it, `log` is the file that
    keeps its lines (see `ChildRequest`). `plain`: nothing heads its lines. `bounds` is
    what it may use and what is kept from it. In a `container`, `environment` is all of the environment there,
    and `directory` keeps the container's bundle.
    """

    app: str
    directory: Path
    environment: Mapping[str, str]
    user: User
    prefix: str = ""
    note: str = ""
    log: tuple[str, int, int] | None = None
    plain: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    container: Container | None = None

    def request(
        self,
        child: str,
        argv: Sequence[str],
        *,
        slots: Sequence[tuple[str, int, str]] = (),
        adopt: bool = False,
        note: str = "",
        voice: Voice = SILENT,
    ) -> ChildRequest:
        """The request to start `argv` under the name `child`.

        `slots` are (key, index, name) of listening sockets; besides LISTEN_FDS and its kin, which the
        keeper sets, einhorn's variables say where they are. With `adopt` the program is handed none: each
        takes the place of the socket it binds by itself. `voice` is how it can say something of itself.
        """
        environment = {**self.environment, **voice.variables(0 if adopt else len(slots))}
        if slots and not adopt:
            environment["EINHORN_FD_COUNT"] = str(len(slots))
            environment.update({f"EINHORN_FD_{n}": str(3 + n) for n in range(len(slots))})
        return ChildRequest(
            child=child,
            argv=list(argv),
            environment=environment,
            directory=str(self.directory),
            prefix="" if self.plain else self.prefix or self.app,
            uid=self.user.uid,
            gid=self.user.gid,
            groups=list(self.user.groups),
            umask=self.bounds.umask,
            nice=self.bounds.nice,
            oom=self.bounds.oom,
            rlimits=dict(self.bounds.rlimits),
            confine=dict(self.bounds.confine),
            slots=[(key, index, name.replace(":", "_")) for key, index, name in slots],
            adopt=adopt,
            note=note or self.note,
            log=self.log,
            notify=voice.notify,
            announces=voice.announces,
            watchdog=voice.watchdog,
        )

    async def spawn(
        self,
        keeper: Keeper,
        child: str,
        argv: Sequence[str],
        *,
        slots: Sequence[tuple[str, int, str]] = (),
        adopt: bool = False,
        note: str = "",
        voice: Voice = SILENT,
        stdio: Sequence[int] = (),
        terminal: bool = False,
    ) -> ChildRecord:
        """Start a program; returns once it runs. Cancelled, it leaves nothing behind.

        `stdio` become its descriptors 0, 1 and 2, and its end that of all it started; with `terminal` they
        are one.

        Raises Permanent (CommandNotFound, CommandNotExecutable, InterpreterMissing, WrongFormat,
        StartFailed), OperatorNeeded (UserNotPossible, DirectoryUnusable, AdoptNotPossible,
        LimitsNotPossible, IsolationNotPossible, ContainerNotPossible), Transient
        (NoResources, KeeperSilent), KeeperLost.
        """
        request = self.request(child, argv, slots=slots, adopt=adopt, note=note, voice=voice)
        request = replace(request, attended=bool(stdio) and self.container is None, terminal=terminal)
        if self.bounds.cgroups is not None and self.bounds.limited:
            made = await asyncio.to_thread(self.bounds.cgroups.make, self.app, child, self.bounds.limits)
            request = replace(request, cgroups=made)
        if self.container is not None:
            return await self._spawn_in(self.container, keeper, request, stdio)
        try:
            return await keeper.spawn(request, stdio)
        except SpawnFailed as error:
            raise self._failure(error, argv) from None
        except TimeoutError as error:
            raise Transient("KeeperSilent", str(error), where=argv[0]) from None

    async def _spawn_in(
        self, container: Container, keeper: Keeper, request: ChildRequest, stdio: Sequence[int]
    ) -> ChildRecord:
        """See `spawn`; where there is no overlayfs, that is found out by the first."""
        from agent.process.oci import runtime

        while True:
            try:
                return await keeper.spawn(await container.furnish(request, self.bounds), stdio)
            except SpawnFailed as error:
                await container.clear(self.directory, request.child)
                if error.stage == "overlay" and not container.host.lacking:
                    container.host.lacking = error.text
                    continue
                if error.stage in ("container", runtime.NAMESPACES):
                    raise runtime.failure(error) from None
                raise self._failure(error, request.argv) from None
            except TimeoutError as error:
                raise Transient("KeeperSilent", str(error), where=self.app) from None

    async def limit_hit(self, child: str) -> str:
        """Which limit ended a child whose processes are gone, for people, or "".

        Its groups are removed, and its container.
        """
        killed = 0
        if self.bounds.cgroups is not None and self.bounds.limited:
            killed = await asyncio.to_thread(self.bounds.cgroups.remove, self.app, child)
        if self.container is not None:
            await self.container.clear(self.directory, child)
        return self.bounds.memory_words if killed else ""

    def _failure(self, error: SpawnFailed, argv: Sequence[str]) -> Failure:
        """What a failed start means."""
        program = argv[0] if argv else ""
        why = os.strerror(error.errno)
        if error.errno in _SHORTAGES:
            return Transient("NoResources", f"{program} cannot be started now: {why}", where=program)
        if error.stage in ("setgroups", "setgid", "setuid"):
            return OperatorNeeded(
                "UserNotPossible", f"cannot become user {self.user.name}: {why}", where=program,
                remedy="run the agent as root",
            )  # fmt: skip
        if error.stage.startswith("rlimit "):
            name = error.stage.removeprefix("rlimit ")
            return OperatorNeeded(
                "LimitsNotPossible", f"RLIMIT_{name} cannot be set: {error.text}", where=program,
                remedy="ask for no more than the agent's own hard limit (ulimit -H), or raise that",
            )  # fmt: skip
        if error.stage == "cgroup":
            return OperatorNeeded(
                "LimitsNotPossible", f"the program cannot be put into its control group: {error.text}",
                where=program, remedy="let the agent own its group (Delegate=yes), or leave run.limits out",
            )  # fmt: skip
        if error.stage.startswith("confine "):
            part = error.stage.removeprefix("confine ")
            return OperatorNeeded(
                "IsolationNotPossible", f"{part} of run.isolation cannot be had here: {error.text}",
                where=program, remedy="see docs/isolation.md for what it takes, or ask for less",
            )  # fmt: skip
        if error.stage == "adopt":
            return OperatorNeeded(
                "AdoptNotPossible", f"seccomp notifications are refused: {why}", where=program,
                remedy="let the sandbox allow seccomp(2), or write socket: fd, or socket: relay",
            )  # fmt: skip
        if error.stage == "chdir":
            return OperatorNeeded(
                "DirectoryUnusable", f"user {self.user.name} cannot enter {self.directory}: {why}",
                where=program, remedy="let that user pass every directory above it",
            )  # fmt: skip
        if error.stage == "interpreter":
            missing = _interpreter(self.directory / program)
            return Permanent(
                "InterpreterMissing", f"{program} is there, but {missing} is not",
                where=program, remedy="install it, or ship a program that needs none",
            )  # fmt: skip
        reason, message, remedy = {
            errno.ENOENT: ("CommandNotFound", "there is no such program", "compare with what was unpacked"),
            errno.EACCES: ("CommandNotExecutable", "it may not be executed", "set its executable bit"),
            errno.ENOEXEC: (
                "WrongFormat",
                f"it is no program for this machine ({os.uname().machine})",
                "check the artifact's architecture, or its first line if it is a script",
            ),
        }.get(error.errno, ("StartFailed", f"{error.stage}: {error.text}".strip(": "), ""))
        return Permanent(reason, message, where=program, remedy=remedy)


def _interpreter(program: Path) -> str:
    """What a program's first line names; a program without one needs a dynamic loader (ld.so(8))."""
    try:
        with program.open("rb") as file:
            line = file.readline(256)
    except OSError:
        line = b""
    if line.startswith(b"#!"):
        return line[2:].strip().decode(errors="replace").split(" ")[0] or "its interpreter"
    return "the dynamic loader it was linked for"
