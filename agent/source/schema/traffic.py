"""`listen`, `socket`, `swap`, `canary`, `drain` and `maintenance`: how clients reach an app."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

import msgspec

from agent.domain.spec import CanarySpec, DrainSpec, MaintenanceSpec, PortSpec, SocketMode, Swap
from agent.kit.templating.meter import TemplateFault
from agent.source.problems import shown
from agent.source.schema.place import Place
from agent.source.schema.scalars import Duration, Port, Raw, seconds
from agent.source.tree import TreeFault

ONLY_PORT = "main"  # the name of the port in `listen: 8080`
PORTS_MAX = 32
SHORTEST_CANARY = 1.0  # seconds
Ports = tuple[PortSpec, ...]
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
ANYWHERE = ("0.0.0.0", "::")


class Listen(Raw, frozen=True, kw_only=True):
    """One public port, spelled out."""

    port: Port | None = None
    address: str | None = None
    protocol: Literal["tcp", "udp"] | None = None


class Canary(Raw, frozen=True, kw_only=True):
    """A share of new connections for the new version, for a while."""

    percent: Annotated[int, msgspec.Meta(ge=1, le=99)] | None = None
    duration: Duration | None = msgspec.field(name="for", default=None)


class Drain(Raw, frozen=True, kw_only=True):
    """How long the old child's waiting connections are given."""

    deadline: Duration | None = None
    connections: bool | None = None


class Maintenance(Raw, frozen=True, kw_only=True):
    """What clients get while no child serves."""

    page: str | None = None
    hold: Duration | None = None
    retry_after: Duration | None = None


def ports(raw: int | dict[str, int | Listen] | None, place: Place) -> tuple[Ports, Ports]:
    """The public ports of TCP and of UDP; the first of TCP is probed when nothing else is said."""
    if raw is None:
        return (), ()
    if isinstance(raw, int):
        return (PortSpec(name=ONLY_PORT, port=raw),), ()
    if not raw and place.sound:
        place.problem("names no port")
    if len(raw) > PORTS_MAX:
        place.problem(f"more than {PORTS_MAX} ports")
        return (), ()
    found: list[PortSpec] = []
    udp = {name for name, value in raw.items() if isinstance(value, Listen) and value.protocol == "udp"}
    for name, value in raw.items():
        at = place / name
        if not _NAME.fullmatch(name):
            at.problem("a port's name holds small letters, digits, - and _, at most 32", key=True)
        port = _port(name, value, at)
        for other in found if port else ():
            if port and (name in udp) == (other.name in udp) and _same_port(port, other):
                at.problem(f"port {port.port} is {other.name} already")
            if name.replace("-", "_") == other.name.replace("-", "_"):
                at.problem(f"has the same variable as {other.name}, which differs in - and _ only", key=True)
        found += [port] if port else []
    return tuple(p for p in found if p.name not in udp), tuple(p for p in found if p.name in udp)


def _port(name: str, raw: int | Listen, place: Place) -> PortSpec | None:
    if isinstance(raw, int):
        return PortSpec(name=name, port=raw)
    address = ANYWHERE[0] if raw.address is None else _address(raw.address, place / "address")
    if raw.port is None:
        place.missing("port")
        return None
    return PortSpec(name=name, port=raw.port, address=address)


def _address(text: str, place: Place) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        place.problem(f"{shown(text)!r} is not an IP address")
        return ANYWHERE[0]


def _same_port(one: PortSpec, other: PortSpec) -> bool:
    """Whether the two cannot both be bound: one number, and one address or one that stands for all."""
    if one.port != other.port:
        return False
    return one.address == other.address or one.address in ANYWHERE or other.address in ANYWHERE


def socket_mode(raw: str | None, listens: bool, place: Place) -> SocketMode:
    """How the app gets its socket; `place` is that of `socket`."""
    if raw is not None and not listens:
        place.problem(f"{raw} needs a port in listen")
    return SocketMode(raw or SocketMode.ADOPT) if listens else SocketMode.OWN


def swap_of(raw: Swap | None, socket: SocketMode, place: Place, *, udp: bool, sound: bool) -> Swap:
    """How releases change over; `sound` says that `socket` and `listen` are as meant."""
    if udp and raw is not Swap.RESTART:
        if raw is Swap.OVERLAP and sound:
            place.problem("the program binds its udp ports by itself, and only one can: use swap: restart")
        return Swap.RESTART
    if raw is None:
        return Swap.RESTART if socket is SocketMode.OWN else Swap.OVERLAP
    if raw is Swap.OVERLAP and socket is SocketMode.OWN and sound:
        place.problem("overlap needs a port in listen")
    return raw


def canary_spec(raw: Canary | None, swap: Swap, listens: bool, place: Place) -> CanarySpec | None:
    """The share for the new version; `listens` says that there is a `listen`, even one with mistakes."""
    if raw is None:
        return None
    for name, value in (("percent", raw.percent), ("for", raw.duration)):
        if value is None:
            place.missing(name)
    if raw.duration is not None and raw.duration < SHORTEST_CANARY:
        (place / "for").problem("must be at least 1s")
    if not listens:
        place.problem("needs a port in listen", key=True)
    elif swap is Swap.RESTART and place.sound:
        place.problem("needs swap: overlap, so that old and new run side by side", key=True)
    return CanarySpec(percent=raw.percent or 1, duration=seconds(raw.duration, SHORTEST_CANARY))


def drain_spec(raw: Drain | None) -> DrainSpec:
    """Times of the end of an old child."""
    spec, raw = DrainSpec(), raw or Drain()
    return DrainSpec(
        deadline=seconds(raw.deadline, spec.deadline),
        connections=spec.connections if raw.connections is None else raw.connections,
    )


def maintenance_spec(raw: Maintenance | None, place: Place) -> MaintenanceSpec:
    """What clients get while no child serves; the page is tried out but rendered later."""
    spec, raw = MaintenanceSpec(), raw or Maintenance()
    page = ""
    if raw.page is not None:
        at = place / "page"
        try:
            page = place.work.renderer.page(raw.page)
        except TreeFault as fault:
            at.problem(str(fault))
        except TemplateFault as fault:
            at.fault_in(raw.page, fault)
    return MaintenanceSpec(
        page=page,
        hold=seconds(raw.hold, spec.hold),
        retry_after=seconds(raw.retry_after, spec.retry_after),
    )
