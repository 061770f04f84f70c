"""What both gates share: state, note and facts, the end of a hold, the page, connections in hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from agent.domain.events import Bus, GateChanged
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.kit.tasks import Owned, stop
from agent.traffic.acceptor import Acceptor
from agent.traffic.drain import connections_gone
from agent.traffic.page import Page, Progress, Render
from agent.traffic.responder import Responder, Tally
from agent.traffic.slots import Notes
from agent.traffic.state import (
    CLOSED,
    GateNote,
    GateState,
    Mode,
    NotNow,
    Verb,
    advance,
    check_side,
    read_note,
)

LOOK = 0.05  # seconds between two looks at who is held
GRACE = 1.0  # seconds that connections in hand have when the gate is closed or left


class BaseGate(ABC):
    """See `state.Gate` for the verbs.

    Args:
        app: name of the app, in facts and notes.
        ports: its public ports, at least one; they stay for the gate's life.
        notes: the keeper.
        bus: hears GateChanged and RequestsAnswered.
        maintenance: page, hold and retry_after.
        progress: tells what the page shows.
        render: renders the app's own page text, if it has one.
    """

    def __init__(
        self,
        app: str,
        ports: Sequence[PortSpec],
        notes: Notes,
        bus: Bus,
        *,
        maintenance: MaintenanceSpec,
        progress: Callable[[], Progress],
        render: Render | None = None,
    ) -> None:
        self.app = app
        self.ports = tuple(ports)
        self._notes = notes
        self._bus = bus
        self._page = Page(maintenance, progress, render)
        self._tally = Tally(app, bus)
        self._responder = Responder(self._page, self._tally)
        self._acceptor: Acceptor[PortSpec] = Acceptor(f"gate {app}", self._receive, self._on_broken)
        self._tasks = Owned(f"gate {app}")
        self._changing = asyncio.Lock()
        self._patience: asyncio.Task[None] | None = None  # the end of a hold
        self._state = CLOSED
        self._left = False  # for good: by close or detach
        self._moved = asyncio.Event()  # set, and replaced, at each change of state
        self._note_key = f"gate {app} " + ",".join(f"{port.address}:{port.port}" for port in self.ports)

    @property
    def state(self) -> GateState:
        """What the gate does now."""
        return self._state

    @property
    def keys(self) -> Sequence[str]:
        """The keeper's keys of what it holds for this gate."""
        return (self._note_key,)

    def configure(self, maintenance: MaintenanceSpec) -> None:
        """Use another page, hold and retry_after from now on; a hold that has begun keeps its end."""
        self._page.configure(maintenance)

    def child_ports(self, side: int) -> dict[str, int]:
        """The numbers, by name, at which the child of `side` listens: the public ones."""
        check_side(side)
        return {port.name: port.port for port in self.ports}

    async def staff(self, side: int, numbers: Collection[int]) -> None:
        """A side is one child here. Raises ValueError for any other."""
        for number in numbers:
            check_side(side, number)

    def staffed(self, side: int) -> Sequence[int]:
        """The instances that get the clients of `side`."""
        check_side(side)
        return (0,)

    async def connections_gone(self, side: int, pid: int, deadline: float) -> bool:
        """Wait until the child of `side`, process `pid`, has no open connection; False at the deadline."""
        return await connections_gone(pid, self.child_ports(side).values(), deadline)

    async def maintain(self) -> None:
        """New connections get the maintenance page."""
        async with self._changing:
            state = advance(self._state, Verb.MAINTAIN)
            self._reclaim(state)
            await self._enter(state)

    async def hold(self, side: int) -> None:
        """New connections wait for the child that `side` will get, for `hold` seconds at most.

        Asked for again, it does not begin anew.
        """
        async with self._changing:
            state = advance(self._state, Verb.HOLD, side)
            note = self._noted()
            begun = state == self._state and note is not None
            until = note.until if note and begun else time.monotonic() + self._page.spec.hold
            self._reclaim(state)
            await self._enter(state, until)

    async def detach(self) -> None:
        """The agent ends, the ports stay: note, slots and steering are left to the keeper as they are."""
        async with self._changing:
            await self._leave()

    def _port(self, name: str) -> PortSpec:
        """The port of that name, "" being the first. Raises KeyError."""
        return {port.name: port for port in self.ports}[name] if name else self.ports[0]

    async def _enter(self, state: GateState, until: float = 0.0) -> None:
        """The one way into a state: noted first, then made true, then told to everyone else."""
        await self._notes.note(self._note_key, self._note(state, until).encode())
        await self._apply(state)
        self._become(state)
        if self._patience is not None and self._patience is not asyncio.current_task():
            await stop(self._patience)
        self._patience = None
        if state.mode is Mode.HOLDING:
            self._patience = self._tasks.start(self._hold_until(state, until), name="hold")

    def _become(self, state: GateState) -> None:
        if state != self._state:
            self._state = state
            self._bus.publish(GateChanged(self.app, state.mode.value, state.percent))
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _any_move(self, timeout: float) -> None:
        """Wait for the next change of state, `timeout` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._moved.wait()

    async def _renote(self) -> None:
        """Note what changed without a change of state."""
        note = self._noted()
        await self._notes.note(
            self._note_key, self._note(self._state, note.until if note is not None else 0.0).encode()
        )

    def _noted(self) -> GateNote | None:
        return read_note(self._notes.notes, self._note_key)

    async def _hold_until(self, state: GateState, until: float) -> None:
        """Look at who is held; at `until` (time.monotonic) everyone who still waits gets the page."""
        while (left := until - time.monotonic()) > 0:
            self._look(state)
            await asyncio.sleep(min(LOOK, left))
        async with self._changing:
            if self._state == state:
                await self._enter(advance(state, Verb.EXPIRE))
                self._expired(state)

    def _check_kept(self) -> None:
        if self._left:
            raise NotNow("a gate that was given up is not opened again: another one is made")

    async def _leave(self) -> None:
        self._left = True
        if self._patience is not None:
            await stop(self._patience)
        await self._acceptor.aclose(GRACE)
        await self._tasks.aclose()
        self._tally.flush()

    @abstractmethod
    def _reclaim(self, to: GateState) -> None:
        """The caller leads the gate to `to`: take back what was lent to a child without use for it."""

    @abstractmethod
    def _note(self, state: GateState, until: float) -> GateNote:
        """What the keeper is told about `state`."""

    @abstractmethod
    async def _apply(self, state: GateState) -> None:
        """Make `state` true in the kernel. Raises OSError."""

    @abstractmethod
    async def _receive(self, connection: socket.socket, port: PortSpec) -> None:
        """Look after a connection the gate itself has accepted, and close it."""

    @abstractmethod
    def _on_broken(self) -> None:
        """A listener does not listen any more."""

    @abstractmethod
    def _look(self, held: GateState) -> None:
        """A moment of a hold."""

    @abstractmethod
    def _expired(self, held: GateState) -> None:
        """The hold is over and the gate is in maintenance."""
