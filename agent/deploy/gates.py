"""The gates of one app: one for each set of ports, and so two while the ports change.

`main` is the gate of what serves. Only its state is told, so that a gate which is opened beside it, or
given up, is never taken for the app's own.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.domain.events import Bus, Event, GateChanged
from agent.domain.spec import AppSpec, PortSpec, SocketMode
from agent.traffic.state import CLOSED, Gate

MakeGate = Callable[[AppSpec, Bus], Gate]


class Gates:
    """Makes gates when they are first asked for, and knows which are there.

    Args:
        app: name of the app.
        make: gives the gate for an app's ports; it does nothing yet.
        bus: hears facts.
    """

    def __init__(self, app: str, make: MakeGate, bus: Bus) -> None:
        self.main: Gate | None = None
        self._app = app
        self._make = make
        self._bus = bus
        self._gates: dict[tuple[tuple[PortSpec, ...], SocketMode], Gate] = {}

    def of(self, spec: AppSpec) -> Gate | None:
        """The gate for these ports, made if there is none; None for an app without ports."""
        if not spec.listen:
            return None
        key = spec.ports
        if key not in self._gates:
            voice = _Voice(self, self._bus)
            self._gates[key] = voice.gate = self._make(spec, voice)
        return self._gates[key]

    def all(self) -> list[Gate]:
        """Every gate that was made and not given up."""
        return list(self._gates.values())

    def lead(self, gate: Gate | None) -> None:
        """From now on this is the gate of what serves."""
        if gate is not self.main:
            self.main = gate
            self._bus.publish(GateChanged(self._app, gate.state.mode.value if gate is not None else ""))

    async def only(self, *kept: Gate | None) -> None:
        """Give up every gate but these."""
        for gate in self.all():
            if gate not in kept:
                await self.give_up(gate)

    async def make_room(self, spec: AppSpec, *kept: Gate | None) -> None:
        """Give up those that stand in the way of the ports of `spec`, but none of `kept`."""
        wanted = {port.port for port in spec.listen}
        for (ports, socket), gate in list(self._gates.items()):
            overlaps = (ports, socket) != spec.ports and wanted & {port.port for port in ports}
            if overlaps and gate not in kept:
                await self.give_up(gate)

    async def give_up(self, gate: Gate) -> None:
        """Close a gate; if its ports are wanted again, another is made."""
        self._gates = {key: other for key, other in self._gates.items() if other is not gate}
        if gate.state != CLOSED:
            await gate.close()
        if gate is self.main:
            self.lead(None)


class _Voice(Bus):
    """What a gate says: all facts, but its state only while no other gate is the main one."""

    def __init__(self, gates: Gates, bus: Bus) -> None:
        super().__init__()
        self.gate: Gate | None = None
        self._gates = gates
        self._bus = bus

    def publish(self, event: Event) -> None:
        """See Bus."""
        if not isinstance(event, GateChanged) or self._gates.main in (None, self.gate):
            self._bus.publish(event)
