"""The gate of an app whose connections the agent relays (`socket: relay`): the last resort.

For programs that can neither be handed a socket nor be given one while they bind. Each child binds a
private port of its own, on 127.0.0.1, which it finds in `$PORT` (`private.py`). The public port's slots are
those of `SlotGate`, so they outlive the agent; but it is the agent that accepts from them:

============  ==================  =====================================================
state         new connections     what becomes of them
============  ==================  =====================================================
maintenance   accepted            the page
holding(s)    wait in slot s      accepted and relayed once the child of side s serves,
                                  or at the end of the hold given the page
open(s)       accepted            relayed to the private port of side s's child
canary(s, o)  accepted            by share relayed to the other side's child
============  ==================  =====================================================

A flip is a variable: whoever is accepted afterwards reaches the new child. The old one is drained when no
connect to it is under way and nobody waits in its own accept queue; `connections_gone` waits for those it
has accepted. A child that refuses connections (it has crashed, the agent does not know yet) costs nobody
anything: who comes is kept for the next one, as long as a hold lasts.

**What this way cannot do.** Every byte passes through the agent, one process: about 0.4 of the requests a
second that nginx alone answers on 64 kept connections, and a third of them on new ones. The child sees
127.0.0.1 as everyone's address. When the agent dies its relayed connections die with it; new ones wait in
the slots and are served by the next agent, which finds the private ports in its note. Other users of this
machine can reach a private port, and take the number of one whose child has ended.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from agent.domain.errors import Transient
from agent.domain.events import Bus
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.traffic.acceptor import Acceptor
from agent.traffic.drain import SLOW_PAUSE, backlogs_empty
from agent.traffic.gate import SlotGate
from agent.traffic.page import Progress, Render
from agent.traffic.private import HOST, free_ports
from agent.traffic.relay import connect, join
from agent.traffic.slots import RESPONDER, SlotHolder, slot_of
from agent.traffic.state import CLOSED, SIDES, GateNote, GateState, Mode, NotNow, check_side

AGAIN = 0.02  # seconds after which a child that refused is asked again
RELAYS_MAX = 16384  # connections in hand, as far as descriptors go: each takes two
DESCRIPTORS_LEFT = 1024  # for everything else the agent does


def relays_at_once() -> int:
    """Connections a gate may have in hand."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(RELAYS_MAX, max(1, (descriptors - DESCRIPTORS_LEFT) // 2, descriptors // 4))


class RelayGate(SlotGate):
    """See the module, `state.Gate` for the verbs, and `SlotGate` for the arguments."""

    def __init__(
        self,
        app: str,
        ports: Sequence[PortSpec],
        holder: SlotHolder,
        bus: Bus,
        *,
        maintenance: MaintenanceSpec,
        progress: Callable[[], Progress],
        render: Render | None = None,
    ) -> None:
        super().__init__(app, ports, holder, bus, maintenance=maintenance, progress=progress, render=render)
        self._acceptor = Acceptor(f"gate {app}", self._receive, self._on_broken, relays_at_once())
        self._private: dict[int, dict[str, int]] = {}  # by side and name of the port
        self._connecting: Counter[int] = Counter()  # connects under way, by side
        self._relayed: Counter[int] = Counter()

    async def open_ports(self) -> None:
        """As `SlotGate`; children that are there already are found again by the note."""
        if self._state == CLOSED:
            note = self._noted()
            self._private = dict(note.private) if note is not None else {}
        await super().open_ports()
        for group in self._groups:
            for listener in group.sockets:
                listener.setblocking(False)  # no child has them: spares five system calls an accept

    def slots(self, side: int, number: int = 0) -> list[tuple[str, int, str]]:
        """None: the child binds its private ports by itself."""
        check_side(side, number)
        return []

    def child_ports(self, side: int) -> dict[str, int]:
        """The private ports, by name, of the child of `side`; none before `prepare`."""
        check_side(side)
        return dict(self._private.get(side, {}))

    async def prepare(self, side: int, number: int = 0, *, blocking: bool = True) -> None:  # noqa: ARG002
        """The child of `side` is about to start: choose private ports for it.

        Raises Transient("NoPrivatePort"), NotNow when the gate is closed.
        """
        check_side(side, number)
        async with self._changing:
            if self._state == CLOSED:
                raise NotNow("a closed gate has no child")
            names = [port.name for port in self.ports]
            taken = {number for ports in self._private.values() for number in ports.values()}
            try:
                self._private[side] = await asyncio.to_thread(free_ports, names, taken)
            except OSError as error:
                raise Transient("NoPrivatePort", str(error), where=self.app) from error
            self._staff.lend(side)
            await self._renote()

    def probe_target(self, side: int, port_name: str = "", number: int = 0) -> tuple[str, int, str | None]:
        """Where the child of `side` listens by itself. Raises NotNow before `prepare`, KeyError."""
        check_side(side, number)
        name = self._port(port_name).name
        if side not in self._private:
            raise NotNow(f"side {side} has no private port yet")
        return HOST, self._private[side][name], None

    def probe_source(self, side: int, port_name: str = "", number: int = 0) -> str | None:  # noqa: ARG002
        """Any: each child has a port of its own."""
        check_side(side, number)
        return None

    async def steer_probe(self, side: int | None) -> None:
        """Nothing to steer: each child has a port of its own."""
        if side is not None:
            check_side(side)

    async def drained(self, side: int, deadline: float, number: int | None = None) -> bool:  # noqa: ARG002
        """Wait until no client is on its way to the child of `side`; False at the deadline.

        Raises NotNow while `side` gets new connections.
        """
        check_side(side)
        if self._state.reaches(side):
            raise NotNow(f"a gate that is {self._state} cannot drain side {side}")
        try:
            async with asyncio.timeout(deadline):
                while self._connecting[side]:  # noqa: ASYNC110 (a moment: the handshake over loopback)
                    await asyncio.sleep(AGAIN)
                await backlogs_empty(self.child_ports(side).values())
        except TimeoutError:
            return False
        return True

    async def connections_gone(self, side: int, pid: int, deadline: float) -> bool:  # noqa: ARG002 (knows)
        """Wait until no relayed connection of the child of `side` is left; False at the deadline."""
        try:
            async with asyncio.timeout(deadline):
                while self._relayed[side]:  # noqa: ASYNC110 (may take minutes, ends rarely)
                    await asyncio.sleep(SLOW_PAUSE)
        except TimeoutError:
            return False
        return True

    async def take_over(self, side: int, number: int | None = None) -> None:
        """The child of `side` ends or has ended: forget its ports, unless it gets new connections."""
        check_side(side)
        if not self._state.reaches(side):
            self._private.pop(side, None)
        await super().take_over(side, number)

    def _reclaim(self, to: GateState) -> None:
        if self._state.mode is Mode.HOLDING:
            self._look(self._state)  # the last look before they are accepted
        super()._reclaim(to)

    def _note(self, state: GateState, until: float) -> GateNote:
        return msgspec.structs.replace(super()._note(state, until), private=self._private)

    def _watch(self, state: GateState) -> None:
        """Accept everywhere but where clients are held."""
        for group in self._groups:
            self._acceptor.watch(group.sockets[RESPONDER], group.port)
            for side in SIDES:
                listener = group.sockets[slot_of(side)]
                if state == GateState(Mode.HOLDING, side):
                    self._acceptor.unwatch(listener)
                else:
                    self._acceptor.watch(listener, group.port)

    async def _receive(self, connection: socket.socket, port: PortSpec) -> None:
        """Relay to whoever serves, wait for it while it is about to come, or show the page."""
        patience = time.monotonic() + self._page.spec.hold
        waits = False
        while self._state.side is not None:
            for side in self._turn():
                if await self._relay(connection, port, side):
                    return
            if time.monotonic() > patience:
                break
            if not waits:
                waits = True
                self._tally.add("held")
            await self._any_move(AGAIN)
        await self._responder.answer(connection)

    def _turn(self) -> Sequence[int]:
        """The sides to try for one connection; in a canary the other one stands in for who refuses."""
        state = self._state
        if state.side is None or state.mode is Mode.HOLDING:
            return ()
        if state.mode is Mode.OPEN:
            return (state.side,)
        chosen = random.randrange(100) < state.percent  # noqa: S311 (a share, no secret)
        return (1 - state.side, state.side) if chosen else (state.side, 1 - state.side)

    async def _relay(self, connection: socket.socket, port: PortSpec, side: int) -> bool:
        """Relay to the child of `side`; False, with nothing read, when it does not accept."""
        number = self._private.get(side, {}).get(port.name)
        if number is None:
            return False
        self._connecting[side] += 1
        try:
            upstream = await connect((HOST, number))
        except OSError:
            return False
        finally:
            self._connecting[side] -= 1
        self._relayed[side] += 1
        try:
            await join(connection, upstream)
        finally:
            self._relayed[side] -= 1
        return True
