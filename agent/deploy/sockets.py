"""How an app gets its listening socket on this host, and what is said about that.

`socket: adopt` is what an app gets when it asks for nothing else. Where programs cannot be adopted, the
agent relays instead, or, with `swap: restart`, leaves the port to the program alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.deploy.services import AppContext
from agent.domain.spec import AppSpec, SocketMode, Swap
from agent.process.adoption import Adoption

_WAYS = {
    SocketMode.ADOPT: ("Adopted", "the program binds its port, and gets a socket of the agent's instead"),
    SocketMode.FD: ("HandedOver", "the program is handed its socket (LISTEN_FDS)"),
    SocketMode.RELAY: ("Relayed", "the program listens on a private $PORT, and the agent relays to it"),
    SocketMode.OWN: ("OwnPort", "the program has its port alone: versions cannot run side by side"),
}


async def for_this_host(apps: Mapping[str, AppSpec], adoption: Adoption) -> dict[str, AppSpec]:
    """The specifications with the next best way for what cannot be adopted here. Raises KeeperLost."""
    if not any(spec.socket is SocketMode.ADOPT for spec in apps.values()) or not await adoption.obstacle():
        return dict(apps)
    return {name: _without_adopt(spec) for name, spec in apps.items()}


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
