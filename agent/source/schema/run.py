"""`run`: the long-running program, how it is stopped, started again and told to read its files."""

from __future__ import annotations

import re
import signal
from typing import Annotated, Literal

import msgspec

from agent.domain.spec import AppSpec, ReloadSpec, RestartSpec, RunSpec, SocketMode, StopSpec
from agent.source.problems import nearest, shown
from agent.source.schema.bounds import (
    Isolation,
    Limits,
    Rlimits,
    Tier,
    isolation_spec,
    limits_spec,
    rlimits_spec,
)
from agent.source.schema.container import container_spec
from agent.source.schema.place import Place
from agent.source.schema.scalars import Command, Duration, Mode, Raw, seconds

_SIGNALS = frozenset(s.name.removeprefix("SIG") for s in signal.Signals) - {"KILL", "STOP", "CHLD", "CLD"}
INSTANCES_MAX = 64  # `agent.keeper.slots` has a socket for each, on both sides
WATCHDOG_SHORTEST = 0.1  # seconds
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,9}")


class Stop(Raw, frozen=True, kw_only=True):
    """How the child is asked to stop."""

    signal: str | None = None
    grace: Duration | None = None


class Restart(Raw, frozen=True, kw_only=True):
    """Bounds of restarting a child that ended by itself."""

    backoff: Duration | None = None
    backoff_max: Duration | None = None
    budget: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    window: Duration | None = None
    cooldown: Duration | None = None


class Reload(Raw, frozen=True, kw_only=True):
    """How the child is told to read its files again."""

    signal: str | None = None
    command: Command | None = None


class Run(Raw, frozen=True, kw_only=True):
    """The long-running program."""

    command: Command | None = None
    user: str | None = None
    group: str | None = None
    umask: Mode | None = None
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] | None = None
    oom_score_adj: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    rlimits: Rlimits | None = None
    driver: Literal["exec", "oci"] | None = None
    hostname: str | None = None
    instances: Annotated[int, msgspec.Meta(ge=1, le=INSTANCES_MAX)] | None = None
    stop: Stop | None = None
    restart: Restart | None = None
    reload: Reload | None = None
    watchdog: Duration | None = None
    limits: Limits | None = None
    isolation: Tier | Isolation | None = None


def run_spec(raw: Run, place: Place) -> RunSpec:
    """The program to keep running."""
    container = container_spec(raw.driver, raw.hostname, place)
    if raw.command is None and container is None:
        place.missing("command")
    for key, name in (("user", raw.user), ("group", raw.group)):
        if name is not None and not USER.fullmatch(name):
            (place / key).problem(f"{shown(name)!r} is not the name or number of a {key}")
    return RunSpec(
        command=(place / "command").command(raw.command),
        user=raw.user or "",
        instances=raw.instances or 1,
        group=raw.group or "",
        umask=RunSpec(command=()).umask if raw.umask is None else int(raw.umask),
        nice=raw.nice,
        oom=raw.oom_score_adj,
        rlimits=rlimits_spec(raw.rlimits),
        limits=limits_spec(raw.limits, place / "limits"),
        isolation=isolation_spec(raw.isolation, place / "isolation"),
        container=container,
        stop=stop_spec(raw.stop or Stop(), place / "stop"),
        restart=_restart(raw.restart or Restart(), place / "restart"),
        reload=reload_spec(
            raw.reload.signal if raw.reload else None,
            raw.reload.command if raw.reload else None,
            place / "reload",
        ),
        watchdog=_watchdog(raw, place / "watchdog"),
    )


def _watchdog(raw: Run, place: Place) -> float:
    found = seconds(raw.watchdog, 0.0)
    if raw.watchdog is not None and found < WATCHDOG_SHORTEST:
        place.problem(f"must be at least {1000 * WATCHDOG_SHORTEST:g}ms")
    return found


def check_instances(spec: RunSpec | None, app: AppSpec, place: Place) -> None:
    """Several instances need a socket that can be shared out."""
    if spec is None or spec.instances == 1:
        return
    why = ""
    if app.socket is SocketMode.RELAY:
        why = "one program is relayed; several need socket: adopt or socket: fd"
    elif app.listen and app.socket is SocketMode.OWN:
        why = "only one program can have the port alone"
    elif app.udp:
        why = "only one program can have a udp port"
    elif any(":" in port.address and port.address != "::" for port in app.listen):
        why = "several need ports at an IPv4 address, or at ::"
    if why:
        place.problem(why)


def stop_spec(raw: Stop, place: Place) -> StopSpec:
    """How a program is asked to stop."""
    spec = StopSpec()
    name = _signal(raw.signal, place / "signal") or spec.signal
    return StopSpec(signal=name, grace=seconds(raw.grace, spec.grace))


def _restart(raw: Restart, place: Place) -> RestartSpec:
    default = RestartSpec()
    spec = RestartSpec(
        backoff=seconds(raw.backoff, default.backoff),
        backoff_max=seconds(raw.backoff_max, default.backoff_max),
        budget=default.budget if raw.budget is None else raw.budget,
        window=seconds(raw.window, default.window),
        cooldown=seconds(raw.cooldown, default.cooldown),
    )
    if spec.backoff > spec.backoff_max:
        (place / ("backoff_max" if raw.backoff_max is not None else "backoff")).problem(
            f"backoff ({spec.backoff:g} s) is longer than backoff_max ({spec.backoff_max:g} s)"
        )
    return spec


def reload_spec(name: str | None, command: list[str] | None, place: Place) -> ReloadSpec:
    """How a program is told to read its files again: by a signal (HUP, if nothing is said) or a command."""
    if name is not None and command is not None:
        (place / "command").problem("give signal or command, not both", key=True)
    number = _signal(name, place / "signal") or ReloadSpec().signal
    return ReloadSpec(signal=number, command=(place / "command").command(command))


def _signal(text: str | None, place: Place) -> str:
    if text is None:
        return ""
    name = text.upper().removeprefix("SIG")
    if name not in _SIGNALS:
        place.problem(f"{shown(text)} is not a signal that can be sent{nearest(name, _SIGNALS)}")
    return name
