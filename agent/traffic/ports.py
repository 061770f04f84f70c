"""Public ports: where this host reaches them, and why one cannot be had."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence

from agent.domain.errors import OperatorNeeded
from agent.domain.model import Condition, ConditionStatus
from agent.domain.spec import PortSpec
from agent.traffic.slots import BACKLOG
from agent.traffic.sockets import listeners


def near_address(port: PortSpec) -> tuple[str, int]:
    """Where a public port is reached from this host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(port.address, port.address), port.port


def variables(ports: Sequence[PortSpec], numbers: Mapping[str, int]) -> dict[str, str]:
    """What a child is told: PORT is the first port, PORT_<NAME> each one.

    Args:
        ports: as in `listen`.
        numbers: what the child binds, by name, where that is not the public port.
    """
    bound = [(port.name, str(numbers.get(port.name, port.port))) for port in ports]
    named = {f"PORT_{name.upper().replace('-', '_')}": number for name, number in bound}
    return {"PORT": bound[0][1], **named} if bound else {}


def short_of_room(room: int, now: float) -> Condition:
    """The condition of an app for which fewer clients can wait than the agent asks for."""
    return Condition(
        "BacklogLimited",
        ConditionStatus.TRUE,
        "SomaxconnTooLow",
        f"only {room} clients can wait at a port while versions change, not {BACKLOG}, and those beyond lose "
        f"a second or more. Raise net.core.somaxconn to {BACKLOG} and start emptybox anew",
        now,
    )


async def port_failure(port: PortSpec, error: OSError) -> OperatorNeeded:
    """The failure to raise for an OSError of bind or listen on `port`: who is to blame, what to do."""
    where = f"{port.address}:{port.port}"
    if error.errno == errno.EADDRINUSE:
        holders = await asyncio.to_thread(listeners, port.port)
        who = " and ".join(str(holder) for holder in holders) or "a process that cannot be seen from here"
        return OperatorNeeded(
            "PortTaken",
            f"port {port.name} is taken by {who}",
            where=where,
            remedy="stop that program, or give one of the two another port",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return OperatorNeeded(
            "PortForbidden",
            f"port {port.name} may not be bound: {error.strerror}",
            where=where,
            remedy="use a port from 1024 on, or grant CAP_NET_BIND_SERVICE, or lower "
            "net.ipv4.ip_unprivileged_port_start",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return OperatorNeeded(
            "AddressUnavailable",
            f"this host has no address {port.address}, which port {port.name} asks for",
            where=where,
            remedy="correct the address, or bring its interface up",
        )
    return OperatorNeeded("PortUnusable", f"port {port.name}: {error.strerror or error}", where=where)
