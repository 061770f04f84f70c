"""How an app gets its listening socket on this host, and what is said about that.

`socket: adopt` is what an app gets when it asks for nothing else. Where programs cannot be adopted, the
agent relays instead, or, with `swap: restart`, leaves the port to the program alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.deploy.services import AppContext
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.spec import AppSpec, SocketMode, Swap
from agent.process.adoption import Adoption

_WAYS = {
    SocketMode.ADOPT: ("Adopted", "the program binds its port, and gets a socket of the agent's instead"),
    SocketMode.FD: ("HandedOver", "the program is handed its socket (LISTEN_FDS)"),
    SocketMode.RELAY: ("Relayed", "the program listens on a private $PORT, and the agent relays to it"),
    SocketMode.OWN: ("OwnPort", "the program has its port alone: versions cannot run side by side"),
}


async def for_this_host(
    apps: Mapping[str, AppSpec], adoption: Adoption
) -> tuple[dict[str, AppSpec], dict[str, FailureInfo]]:
    """The specifications with the next best way for what cannot be adopted here, and those that have none.

    Raises KeeperLost.
    """
    if not any(spec.socket is SocketMode.ADOPT for spec in apps.values()):
        return dict(apps), {}
    obstacle = await adoption.obstacle()
    if not obstacle:
        return dict(apps), {}
    refused = {name: _no_way(obstacle) for name, spec in apps.items() if _several_adopted(spec)}
    return {name: _without_adopt(spec) for name, spec in apps.items() if name not in refused}, refused


def _several_adopted(spec: AppSpec) -> bool:
    return spec.socket is SocketMode.ADOPT and spec.run is not None and spec.run.instances > 1


def _no_way(obstacle: str) -> FailureInfo:
    told = f"several instances need their sockets adopted, which is not possible here: {obstacle}"
    remedy = "write socket: fd, if the program takes its socket over (LISTEN_FDS), or one instance"
    return FailureInfo(FailureKind.OPERATOR, "AdoptNotPossible", told, where="run.instances", remedy=remedy)


def _without_adopt(spec: AppSpec) -> AppSpec:
    if spec.socket is not SocketMode.ADOPT:
        return spec
    way = SocketMode.RELAY if spec.swap is Swap.OVERLAP else SocketMode.OWN
    return msgspec.structs.replace(spec, socket=way)


def tell_socket_mode(app: AppContext) -> None:
    """Tell how the app gets its listening socket, if it has one."""
    spec = app.current.spec if app.current is not None else app.wanted
    if spec is None or not spec.listen:
        return
    reason, message = _WAYS[spec.socket]
    obstacle = app.services.adoption.known
    if obstacle and not spec.socket.slots:
        message += f"; adopt is not possible here: {obstacle}"
    app.condition("SocketMode", True, reason, message)
