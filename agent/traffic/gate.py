"""The gate of an app that is handed its listening socket (`socket: fd`): flips between static slots.

Each port has three slots in one SO_REUSEPORT group (`slots.py`), and a steering program says which of
them gets new connections (`steering.py`): 0 the responder's, 1 side 0's, 2 side 1's. Further instances of
an app have slots of their own behind these; a side's connections are spread over those it is staffed with
(`staff.py`).

============  ==================  =====================================================
state         new connections     accepted there by
============  ==================  =====================================================
maintenance   slot 0              the responder, with the page
holding(s)    slot of side s      nobody yet, then the child of side s once it starts;
                                  at the end of the hold this gate, with the page
open(s)       slot of side s      the child of side s
canary(s, o)  slot of side s, or  the child of side s,
              by share that of o  or that of the other side
============  ==================  =====================================================

A listener that has a queue and nobody to accept would make clients hang. So the gate itself accepts
from slot 0 always, and from a side's slot while no child is there and it is not the one steered to:
who comes there was under way during a flip, and gets what the present state has for everyone, the page
or (relayed, by a connection to the public port) the child.

The state is noted with the keeper before the kernel is told. An agent that dies in between leaves a
successor that completes the flip; one that dies at any other time leaves one that changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from agent.domain.events import Bus, ConditionChanged
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.traffic.base import BaseGate
from agent.traffic.drain import queues_empty
from agent.traffic.groups import Groups
from agent.traffic.page import Progress, Render
from agent.traffic.ports import near_address, short_of_room
from agent.traffic.relay import relay
from agent.traffic.slots import BACKLOG, RESPONDER, SlotHolder, room, slot_of, waiting
from agent.traffic.staff import Staff
from agent.traffic.state import CLOSED, GateNote, GateState, Mode, NotNow, Verb, advance, check_side
from agent.traffic.steering import DUAL_STACK, PROBE_SOURCE, SERVING_SOURCE

log = logging.getLogger(__name__)


class SlotGate(BaseGate):
    """See the module, `state.Gate` for the verbs, and `BaseGate` for the other arguments.

    Args:
        app: name of the app.
        ports: its public ports.
        holder: the keeper.
        bus: hears facts.
    """

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
        self._holder = holder
        self._groups = Groups(holder, self.ports, self.key)
        self._staff = Staff()
        self._probed: int | None = None
        self._seen = 0  # who was held at the last look

    @property
    def keys(self) -> Sequence[str]:
        """Those of the slots, and that of the note."""
        return (*map(self.key, self.ports), *super().keys)

    def key(self, port: PortSpec) -> str:
        """The keeper's key of a port's slots: of this app, and of no other port it may move to."""
        return f"{self.app}/{port.name}@{port.address}:{port.port}"

    async def open_ports(self) -> None:
        """Have the slots: in maintenance when they are new, else as the keeper's note says.

        Raises OperatorNeeded(PortTaken | PortForbidden | AddressUnavailable), and none is open then; NotNow
        once the gate was given up.
        """
        async with self._changing:
            self._check_kept()
            if self._state != CLOSED:
                return
            note = self._noted()
            self._staff = Staff(note)
            try:
                await self._groups.open(note)
                self._tell_room()
                if note is None:
                    await self._enter(advance(CLOSED, Verb.OPEN_PORTS))
                else:
                    await self._enter(note.state, until=note.until)
            except BaseException:
                await asyncio.shield(self._abandon(keep=note is not None))
                raise

    def _tell_room(self) -> None:
        """Say so when fewer clients can wait than the agent wants; once for as long as the ports are open."""
        least = min(room(listener) for group in self._groups for listener in group.sockets)
        if least < BACKLOG:
            self._bus.publish(ConditionChanged(self.app, short_of_room(least, time.time())))

    async def _abandon(self, *, keep: bool) -> None:
        """Ports could not be opened: leave none of them behind, but those that were there before."""
        opened = [group.key for group in self._groups]
        for group in self._groups:
            for member in group.sockets:
                self._acceptor.unwatch(member)
        self._groups.close()
        for key in opened if not keep else ():
            await self._holder.close_slots(key)

    def slots(self, side: int, number: int = 0) -> list[tuple[str, int, str]]:
        """(key, index, port name) of each listening socket for `ChildRequest.slots`, in the ports' order."""
        check_side(side)
        return [(self.key(port), slot_of(side, number), port.name) for port in self.ports]

    async def prepare(self, side: int, number: int = 0, *, blocking: bool = True) -> None:
        """An instance of `side` is about to start: leave its slot to it, with a full backlog.

        Raises OperatorNeeded where it has none yet, and none is to be had.
        """
        check_side(side)
        slot = slot_of(side, number)
        async with self._changing:
            if self._state == CLOSED:
                raise NotNow("a closed gate has no slot to lend")
            if self._state == GateState(Mode.HOLDING, side) and number == 0:
                self._look(self._state)  # the last look before the child begins to accept
                self._probed = side  # probes reach the child also when the hold ends meanwhile
            if number == 0 and not self._state.reaches(side):
                self._staff.alone(side)
            if await self._groups.grow(number):
                await self._apply(self._state)  # probes reach each by its number from now on
            if slot not in self._staff.lent:
                self._staff.lent.add(slot)
                self._watch(self._state)
                await self._renote()
                for group in self._groups:
                    group.lend(slot, blocking=blocking)

    def staffed(self, side: int) -> Sequence[int]:
        """The instances that get the clients of `side`."""
        check_side(side)
        return self._staff.numbers(side)

    async def staff(self, side: int, numbers: Collection[int]) -> None:
        """These instances get the clients of `side` from now on."""
        check_side(side)
        async with self._changing:
            if self._state == CLOSED:
                raise NotNow("a closed gate has no clients to give")
            self._staff.appoint(side, numbers)
            self._lend(side)
            await self._renote()
            await self._apply(self._state)

    async def serve(self, side: int) -> None:
        """New connections go to the child of `side` from now on: the first one, or a flip."""
        async with self._changing:
            state = advance(self._state, Verb.SERVE, side)
            self._reclaim(state)
            self._lend(side)
            self._probed = None
            await self._enter(state)

    async def canary(self, side: int, percent: int) -> None:
        """`percent` of the new connections go to the child of `side`, the others stay where they are."""
        async with self._changing:
            state = advance(self._state, Verb.CANARY, side, percent)
            self._lend(side)
            await self._enter(state)

    def probe_source(self, side: int, port_name: str = "", number: int = 0) -> str | None:
        """The mark with which probes reach an instance of `side` now (None: any). See `domain.probe_mark`."""
        check_side(side)
        port = self._port(port_name)
        for group in self._groups:
            if group.port == port and (source := group.probe_source(slot_of(side, number))) is not None:
                return source
        if self._state == GateState(Mode.OPEN, side):
            return None
        beside = self._state.mode is Mode.CANARY and side == self._state.side
        return SERVING_SOURCE if beside else PROBE_SOURCE

    def probe_target(self, side: int, port_name: str = "", number: int = 0) -> tuple[str, int, str | None]:
        """Host, port and source address for probing an instance of `side` on the public port.

        Args:
            side: 0 or 1.
            port_name: "" is the first port. Raises KeyError for a name that is not there.
            number: which of several instances.
        """
        check_side(side)
        port = self._port(port_name)
        host, at = near_address(port)
        source = self.probe_source(side, port_name, number)
        return "127.0.0.1" if port.address == DUAL_STACK else host, at, source

    async def steer_probe(self, side: int | None) -> None:
        """Connections from the probe's source address reach `side`, whoever is served; None ends that."""
        async with self._changing:
            if self._state == CLOSED:
                raise NotNow("a closed gate cannot be probed")
            if side is not None:
                check_side(side)
                self._lend(side)
            self._probed = side
            await self._apply(self._state)

    async def drained(self, side: int, deadline: float, number: int | None = None) -> bool:
        """Wait until nobody waits for the children of `side`, nor is on the way; False at the deadline.

        Call it after the flip away from `side` and before its child is asked to stop; whoever still
        comes afterwards is a case for `take_over`. For one instance alone, once `staff` left it out.
        Raises NotNow while new connections go there.
        """
        check_side(side)
        if self._state.reaches(side) and (number is None or number in self._staff.numbers(side)):
            raise NotNow(f"a gate that is {self._state} cannot drain side {side}")
        listeners = [group.sockets[slot] for group in self._groups for slot in group.of(side, number)]
        return await queues_empty(
            lambda: sum(map(waiting, listeners)), [port.port for port in self.ports], deadline
        )

    async def take_over(self, side: int, number: int | None = None) -> None:
        """A child of `side` was told to stop, or has ended: from now on its slot is looked after here.

        Also puts the slot back in order when the child has shut it down: so call it after the child's
        end in any case. A slot that gets new connections is left alone: `hold`, `maintain` or `staff` first.
        """
        check_side(side)
        async with self._changing:
            if self._state != CLOSED:
                if number is None:
                    self._staff.reclaim(side)
                else:
                    self._staff.lent.discard(slot_of(side, number))
                await self._renote()
                await self._apply(self._state)

    async def close(self) -> None:
        """Give the ports up: connections in hand end soon, those that wait are reset."""
        async with self._changing:
            state = advance(self._state, Verb.CLOSE)
            if state == self._state:
                return
            await self._leave()
            await self._groups.give_up()
            await self._holder.note(self._note_key, None)
            self._become(state)

    async def _leave(self) -> None:
        await super()._leave()
        self._groups.close()

    def _reclaim(self, to: GateState) -> None:
        """A hold is for a child that is not there yet, and one that leads nowhere was for none that works."""
        if to != self._state and to.mode is Mode.HOLDING and to.side is not None:
            self._seen = 0
            self._staff.reclaim(to.side)
            self._staff.alone(to.side)
        if self._state.mode is Mode.HOLDING and self._state.side not in (to.side, None):
            self._staff.reclaim(self._state.side)
            self._probed = None

    def _note(self, state: GateState, until: float) -> GateNote:
        order = self._groups.order
        lent, staff = self._staff.noted()
        return GateNote(state.mode, state.side, until, lent, order, percent=state.percent, staff=staff)

    async def _apply(self, state: GateState) -> None:
        if broken := self._groups.broken():
            await self._mend(broken)
        slots = [RESPONDER] if state.side is None else self._staff.slots(state.side)
        probed = None if self._probed is None else slot_of(self._probed)
        canary = None if state.tried is None else (self._staff.slots(state.tried), state.percent)
        self._groups.steer(slots, probed, canary)
        self._watch(state)

    async def _mend(self, broken: dict[str, list[int]]) -> None:
        """Put back slots that a child has shut down. Their new order is noted before it becomes true."""
        log.warning("%s: a child shut its listening socket down; it is opened again", self.app)
        if (note := self._noted()) is not None:
            changed = msgspec.structs.replace(note, order=self._groups.mended(broken))
            await self._holder.note(self._note_key, changed.encode())
        self._groups.mend(broken)

    def _lend(self, side: int) -> None:
        self._staff.lend(side)
        self._watch(self._state)

    def _watch(self, state: GateState) -> None:
        """Accept from the slots at which nobody else does."""
        others = self._staff.lent.union(() if state.side is None else self._staff.slots(state.side))
        for group in self._groups:
            for slot, listener in enumerate(group.sockets):
                if slot in others:
                    self._acceptor.unwatch(listener)
                else:
                    self._acceptor.watch(listener, group.port)

    def _on_broken(self) -> None:
        self._tasks.start(self._repair(), name="repair")

    async def _repair(self) -> None:
        async with self._changing:
            await self._apply(self._state)

    async def _receive(self, connection: socket.socket, port: PortSpec) -> None:
        """Someone came to a slot at which no child accepts: the page, or whoever is served now."""
        near = near_address(port)
        # in a canary it would be drawn for the very side again at which nobody accepts
        straight = self._state.mode is Mode.CANARY and ":" not in near[0]
        source = SERVING_SOURCE if straight else None
        if self._state.side is None or not await relay(connection, near, source=source):
            await self._responder.answer(connection)

    def _look(self, held: GateState) -> None:
        """Count who is held, by the growth of the queues: the kernel tells no more."""
        now = sum(waiting(listener) for listener, _ in self._held(held))
        self._tally.add("held", now - self._seen)
        self._seen = now

    def _expired(self, held: GateState) -> None:
        """A child may be about to accept in that slot, so what waits is accepted once, and no more."""
        for listener, port in self._held(held):
            self._acceptor.accept_all(listener, port)

    def _held(self, state: GateState) -> list[tuple[socket.socket, PortSpec]]:
        assert state.side is not None
        slots = self._staff.slots(state.side)
        return [(group.sockets[slot], group.port) for group in self._groups for slot in slots]
