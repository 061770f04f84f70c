"""What a tier of isolation means for a program of an app here: the order that the keeper's child carries out.

| | none | standard | strict |
|---|---|---|---|
| no_new_privs | | yes | yes |
| capabilities | as the agent's | those ordinary servers of root use | none |
| calls (seccomp) | | machine-wide ones denied | and those about other processes and namespaces |
| other processes | | not looked into, not signalled | and not spoken to by abstract sockets |
| files | as its user may | as its user may | only what is named: programs, its release, its own directories |
| TCP ports | all | all | its own; `connect` says to which |

What was asked for, in the state or by the agent's settings, is in force or there is no start; what is only
the default is taken as far as it can be had. No tier opens the agent's own places (`closed`) to `strict`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import IsolationSpec

TIERS = ("none", "standard", "strict")  # the weakest first
# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT AUDIT_WRITE
ORDINARY = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29)
ALWAYS = ("no_new_privs", "capabilities", "ptrace", "calls")
PROGRAMS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store",
    "/proc", "/sys", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager",
)  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
OPENED_MAX = 2000  # paths that one list is opened into


@dataclass(frozen=True, slots=True)
class Home:
    """Where a program of an app lives: what it may `read`, what it may `write`, and its own `tmp`."""

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    tmp: Path


@dataclass(frozen=True, slots=True)
class Leave:
    """What the agent's settings allow.

    `weakest` tier; `roots` below which a state may open paths to a strict app when that is the weakest; and
    the `closed` places, which are opened to no strict app.
    """

    weakest: str = "standard"
    roots: tuple[Path, ...] = ()
    closed: tuple[Path, ...] = ()


def tier_of(spec: IsolationSpec, weakest: str) -> tuple[str, bool]:
    """The tier, and whether it must be in force. Raises OperatorNeeded("IsolationNotAllowed")."""
    if spec.tier and TIERS.index(spec.tier) < TIERS.index(weakest):
        raise OperatorNeeded(
            "IsolationNotAllowed",
            f"run.isolation {spec.tier} is weaker than {weakest}, the weakest allowed here",
            remedy=f"start the agent with --weakest-isolation {spec.tier}, or take a stronger tier",
        )
    return spec.tier or max("standard", weakest, key=TIERS.index), bool(spec.tier) or weakest == "strict"


def confinement(
    spec: IsolationSpec,
    leave: Leave,
    home: Home,
    *,
    ports: Collection[int],
    slots: bool,
    command: bool,
) -> tuple[str, Mapping[str, Any]]:
    """The tier's name, and the order (see `agent.keeper.confine.orders`; empty for nothing at all).

    Args:
        spec: what the state says.
        leave: what the settings allow.
        home: where the program lives.
        ports: TCP ports it has to bind by itself.
        slots: whether it gets its sockets from the keeper, so that it needs no network of the host's.
        command: runs to its end: in `standard` it may signal the app, which reload commands do.

    Raises OperatorNeeded (IsolationNotAllowed, IsolationNotPossible).
    """
    tier, must = tier_of(spec, leave.weakest)
    order: dict[str, Any] = {}
    if tier != "none":
        order = {"calls": tier, "capabilities": list(ORDINARY) if tier == "standard" else []}
        order["landlock"] = {"scopes": [] if command else ["signals"]}
        order["must"] = list(ALWAYS) if must else []
    if tier == "strict":
        order["must"] += ["files", *(["connect"] if spec.connect is not None else [])]
        order["landlock"] = {
            "scopes": ["signals", "abstract"],
            **_files(spec, leave, home),
            "bind": sorted(ports),
            "connect": None if spec.connect is None else list(spec.connect),
        }
    spaces = list(spec.namespaces)
    if "net" in spaces and ports and not slots:
        raise OperatorNeeded(
            "IsolationNotPossible",
            "a program with a network of its own can be reached by nobody at ports it binds itself",
            remedy="write socket: adopt or fd, or leave net out of run.isolation.namespaces",
        )
    if spec.private or "pid" in spaces:
        spaces.append("mount")
    if spaces:
        order["namespaces"] = spaces + (["user"] if os.geteuid() != 0 else [])
        order["private"] = list(spec.private)
        order["keep"] = [[str(path), tier != "strict"] for path in home.read]
        order["keep"] += [[str(path), True] for path in home.write]
    return tier, order


def _files(spec: IsolationSpec, leave: Leave, home: Home) -> dict[str, list[str]]:
    if leave.weakest == "strict":
        _check_roots((*spec.read, *spec.write), leave.roots)
    own = [str(path) for path in home.write]
    read = [*opened((*PROGRAMS, *spec.read), leave.closed), *(str(path) for path in home.read)]
    devices = [f"/dev/{name}" for name in DEVICES]
    private = [*(["/tmp", "/var/tmp"] if "tmp" in spec.private else [str(home.tmp)])]  # noqa: S108
    private += ["/dev"] if "dev" in spec.private else []
    return {"read": read, "write": [*opened(spec.write, leave.closed), *own, *devices, *private]}


def mounted(spec: IsolationSpec, leave: Leave) -> tuple[tuple[str, bool], ...]:
    """What a container sees of this host, and whether it may write there. Raises OperatorNeeded."""
    if leave.weakest == "strict":
        _check_roots((*spec.read, *spec.write), leave.roots)
    found = [(path, False) for path in opened(spec.read, leave.closed)]
    return (*found, *((path, True) for path in opened(spec.write, leave.closed)))


def _check_roots(paths: Iterable[str], roots: Sequence[Path]) -> None:
    for path in paths:
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
            raise OperatorNeeded(
                "IsolationNotAllowed",
                f"run.isolation may not open {path} to an app",
                remedy="start the agent with --isolation-root and a directory above it",
            )


def opened(paths: Iterable[str], closed: Sequence[Path]) -> list[str]:
    """What is to be opened so that `paths` can be used, but nothing at or below those that are `closed`."""
    shut = [Path(os.path.realpath(path)) for path in closed]
    found = [path for text in paths for path in _around(Path(os.path.realpath(text)), shut)]
    return list(dict.fromkeys(found[:OPENED_MAX]))


def _around(path: Path, closed: Sequence[Path]) -> Iterator[str]:
    if any(path.is_relative_to(shut) for shut in closed):
        return
    if not any(shut.is_relative_to(path) for shut in closed):
        yield str(path)
        return
    try:
        names = os.listdir(path)
    except OSError:
        return
    for name in sorted(names):
        if not (path / name).is_symlink():
            yield from _around(path / name, closed)
