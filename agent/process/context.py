"""Who a program of an app runs as, where, and with what: said once, used for children and commands."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.keeper.client import SpawnFailed
from agent.keeper.protocol import ChildRecord, ChildRequest
from agent.process.keepers import Keeper
from agent.process.voice import SILENT, Voice

_SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY}


@dataclass(frozen=True, slots=True)
class User:
    """Who a program runs as. uid and gid None: the agent's own, with its groups; home "" likewise."""

    name: str
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    home: str = ""


def find_user(name: str, allowed: Collection[str]) -> User:
    """Look a user up; "" and the agent's own name are the agent's own.

    `allowed` are the names the operator lets apps run as. Where some are named and the agent is root, no app
    is root but by that name. Raises OperatorNeeded (UserNotAllowed, UserUnknown, UserNotPossible).
    """
    own = _name_of(os.geteuid())
    if name in ("", own):
        if os.geteuid() == 0 and allowed and own not in allowed:
            raise OperatorNeeded(
                "UserNotAllowed",
                f"apps may not run as {own} here, and this one names no other user",
                remedy=f"name a user in run.user: {', '.join(allowed)}",
            )
        return User(own)
    if name not in allowed:
        raise OperatorNeeded(
            "UserNotAllowed",
            f"apps may not run as user {name!r}",
            remedy=f"start the agent with --allow-user {name}, or take another user",
        )
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise OperatorNeeded(
            "UserUnknown", f"there is no user {name!r} here", remedy="add the user to this machine or image"
        ) from None
    if os.geteuid() != 0:
        raise OperatorNeeded(
            "UserNotPossible",
            f"the agent runs as {own} and cannot start programs as {name!r}",
            remedy=f"run the agent as root, or as {name} and leave the user out",
        )
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return User(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def is_own(name: str) -> bool:
    """Whether programs of user `name` run as the agent's own; also said of one that nobody knows."""
    if name in ("", _name_of(os.geteuid())):
        return True
    try:
        return pwd.getpwnam(name).pw_uid == os.geteuid()
    except (KeyError, ValueError):
        return True


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a number nobody has a name for
        return str(uid)


@dataclass(frozen=True, slots=True)
class ChildContext:
    """Everything about a program of an app but the program itself.

    `directory` is where it starts, `environment` all of its environment, `prefix` heads its lines in
    the output ("" = the app's name), `note` is what the keeper remembers with it, `log` is the file that
    keeps its lines (see `ChildRequest`). `plain`: nothing heads its lines.
    """

    app: str
    directory: Path
    environment: Mapping[str, str]
    user: User
    prefix: str = ""
    note: str = ""
    log: tuple[str, int, int] | None = None
    plain: bool = False

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
    ) -> ChildRecord:
        """Start a program; returns once it runs. Cancelled, it leaves nothing behind.

        Raises Permanent (CommandNotFound, CommandNotExecutable, InterpreterMissing, WrongFormat,
        StartFailed), OperatorNeeded (UserNotPossible, DirectoryUnusable, AdoptNotPossible), Transient
        (NoResources, KeeperSilent), KeeperLost.
        """
        try:
            return await keeper.spawn(
                self.request(child, argv, slots=slots, adopt=adopt, note=note, voice=voice)
            )
        except SpawnFailed as error:
            raise self._failure(error, argv) from None
        except TimeoutError as error:
            raise Transient("KeeperSilent", str(error), where=argv[0]) from None

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
