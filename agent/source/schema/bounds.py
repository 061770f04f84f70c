"""`run.limits`, `run.rlimits` and `run.isolation`: what a program may use, and what is kept from it."""

from __future__ import annotations

import posixpath
from typing import Annotated, Literal, TypeAlias

import msgspec

from agent.domain.spec import IsolationSpec, LimitsSpec
from agent.source.problems import shown
from agent.source.schema.place import PATH_MAX, Place
from agent.source.schema.scalars import Port, Raw, Size

MEMORY_MIN = 1 << 20  # bytes: below, no program lives
PATHS_MAX = 100
UNLIMITED = -1

Tier: TypeAlias = Literal["strict", "standard", "none"]
Bound: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Io(Raw, frozen=True, kw_only=True):
    """Bytes a second."""

    read: Size | None = None
    write: Size | None = None


class Limits(Raw, frozen=True, kw_only=True):
    """What the program and all it starts may use together."""

    memory: Size | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0, le=4096)] | None = None
    pids: Annotated[int, msgspec.Meta(ge=1, le=1 << 22)] | None = None
    io: Io | None = None


class Rlimits(Raw, frozen=True, kw_only=True):
    """setrlimit(2): what each process may use by itself."""

    open_files: Bound | None = None
    processes: Bound | None = None
    file_size: Size | None = None
    data: Size | None = None
    address_space: Size | None = None
    stack: Size | None = None
    locked_memory: Size | None = None
    core: Size | None = None


class Isolation(Raw, frozen=True, kw_only=True):
    """The tier, and what goes beyond it or widens it."""

    tier: Tier | None = None
    namespaces: list[Literal["pid", "ipc", "net"]] | None = None
    private: list[Literal["tmp", "dev"]] | None = None
    read: list[str] | None = None
    write: list[str] | None = None
    connect: list[Port] | None = None


_RLIMITS = {
    "open_files": "NOFILE",
    "processes": "NPROC",
    "file_size": "FSIZE",
    "data": "DATA",
    "address_space": "AS",
    "stack": "STACK",
    "locked_memory": "MEMLOCK",
    "core": "CORE",
}


def rlimits_spec(raw: Rlimits | None) -> dict[str, int]:
    """By the kernel's names."""
    values = msgspec.structs.asdict(raw) if raw is not None else {}
    return {_RLIMITS[key]: int(value) for key, value in values.items() if value is not None}


def limits_spec(raw: Limits | None, place: Place) -> LimitsSpec:
    """The limits of the whole."""
    raw = raw or Limits()
    if raw.memory is not None and raw.memory < MEMORY_MIN:
        (place / "memory").problem(f"{int(raw.memory)} bytes are too few for any program; write 512M")
    if raw.cpus is not None and not 0.01 <= raw.cpus <= 4096:
        (place / "cpus").problem("must be from 0.01 to 4096")
    io = raw.io or Io()
    for key, value in (("read", io.read), ("write", io.write)):
        if value is not None and value < 1:
            (place / "io" / key).problem("must be more than nothing")
    return LimitsSpec(
        memory=int(raw.memory or 0),
        cpus=float(raw.cpus or 0),
        pids=raw.pids or 0,
        read=int(io.read or 0),
        write=int(io.write or 0),
    )


def isolation_spec(raw: Tier | Isolation | None, place: Place) -> IsolationSpec:
    """The isolation; a plain word is the tier."""
    if not isinstance(raw, Isolation):
        return IsolationSpec(tier=raw or "")
    if raw.tier != "strict":
        for key in ("read", "write", "connect"):
            if getattr(raw, key) is not None:
                (place / key).problem("has a meaning in the tier strict only", key=True)
    return IsolationSpec(
        tier=raw.tier or "",
        namespaces=tuple(sorted(set(raw.namespaces or ()))),
        private=tuple(sorted(set(raw.private or ()))),
        read=_paths(raw.read, place / "read"),
        write=_paths(raw.write, place / "write"),
        connect=None if raw.connect is None else tuple(sorted(set(raw.connect))),
    )


def _paths(raw: list[str] | None, place: Place) -> tuple[str, ...]:
    if len(raw or ()) > PATHS_MAX:
        place.problem(f"more than {PATHS_MAX} paths")
        return ()
    found = []
    for index, text in enumerate(raw or ()):
        path = (place / index).render(text)
        if not (place / index).sound:
            continue
        if not path.startswith("/") or ".." in path.split("/") or len(path) > PATH_MAX:
            (place / index).problem(f"{shown(path)!r} is not an absolute path without ..")
        found.append("/" + posixpath.normpath(path).strip("/"))
    return tuple(found)
