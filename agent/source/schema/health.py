"""`health`: one kind of probe, and the rules by which probes become a verdict."""

from __future__ import annotations

from typing import Literal

from agent.domain.spec import HealthSpec, PortSpec, ProbeKind
from agent.source.problems import nearest, shown
from agent.source.schema.place import Place
from agent.source.schema.scalars import Command, Count, Duration, Raw, seconds

SHORTEST = 0.01  # seconds
PATH_MAX = 2048
_KINDS = ("http", "tcp", "exec", "alive", "notify")


class Health(Raw, frozen=True, kw_only=True):
    """The probe: at most one of http, tcp, exec, alive and notify."""

    http: str | None = None
    tcp: str | None = None
    exec: Command | None = None
    alive: Duration | None = None
    notify: Literal["systemd", "fd"] | None = None
    port: str | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    successes: Count | None = None
    failures: Count | None = None
    deadline: Duration | None = None
    probation: Duration | None = None


def health_spec(
    raw: Health | None, ports: tuple[PortSpec, ...], place: Place, *, listens: bool
) -> HealthSpec:
    """The probe and its rules. `listens` says that there is a `listen`, even one with mistakes."""
    raw = raw or Health()
    given = [kind for kind in _KINDS if getattr(raw, kind) is not None]
    for kind in given[1:]:
        (place / kind).problem(f"{given[0]} is the probe already; one app has one", key=True)
    kind = given[0] if given else ("tcp" if listens else "alive")
    if given and kind in ("http", "tcp") and not listens:
        (place / kind).problem("needs a port in listen", key=True)
    default = HealthSpec()
    spec = HealthSpec(
        kind=ProbeKind(kind),
        path=_path(raw.http, place / "http") if raw.http is not None else default.path,
        port=_port(raw, kind, ports, place),
        command=(place / "exec").command(raw.exec),
        announces=raw.notify == "fd",
        alive=seconds(raw.alive, default.alive),
        interval=seconds(raw.interval, default.interval),
        timeout=seconds(raw.timeout, default.timeout),
        successes=raw.successes or default.successes,
        failures=raw.failures or default.failures,
        deadline=seconds(raw.deadline, default.deadline),
        probation=seconds(raw.probation, default.probation),
    )
    _check_times(spec, place)
    return spec


def _path(text: str, place: Place) -> str:
    path = place.render(text)
    if place.sound and (
        not path.startswith("/")
        or len(path) > PATH_MAX
        or not path.isascii()
        or not path.isprintable()
        or " " in path
    ):
        place.problem("expected a path like /healthz; the host is always this one")
    return path


def _port(raw: Health, kind: str, ports: tuple[PortSpec, ...], place: Place) -> str:
    """The name of the port that is probed, given by name or number; "" is the first."""
    text, key = (raw.tcp, "tcp") if kind == "tcp" and raw.tcp is not None else (raw.port, "port")
    if raw.port is not None and (key == "tcp" or kind not in ("http", "tcp")):
        (place / "port").problem("says which port http asks; here nothing does", key=True)
    if text is None or not ports:
        return ""
    for port in ports:
        if text in (port.name, str(port.port)):
            return port.name
    names = [port.name for port in ports]
    (place / key).problem(
        f"{shown(text)} is no port of listen{nearest(text, names)}; there is {', '.join(names)}"
    )
    return ""


def _check_times(spec: HealthSpec, place: Place) -> None:
    for name in ("interval", "timeout", "deadline"):
        if getattr(spec, name) < SHORTEST:
            (place / name).problem("must be at least 10ms")
    if spec.kind is ProbeKind.ALIVE and spec.alive >= spec.deadline:
        at = "alive" if spec.alive != HealthSpec().alive else "deadline"
        (place / at).problem(f"alive ({spec.alive:g} s) must be shorter than deadline ({spec.deadline:g} s)")
