"""The gate of an app that binds its port by itself (`socket: own`, `swap: restart`).

An unmodified program and this gate cannot listen on one port at the same time, so they take turns:

============  ===================================================================================
state         the port
============  ===================================================================================
maintenance   the gate listens (once the old child has let go); every client gets the page
holding(s)    the gate listens and accepts; clients are kept, unread, for `hold` seconds at most
open(s)       the child listens; the gate has nothing to do with its clients
============  ===================================================================================

`hold` and `maintain` may be called while the old child still runs: the gate listens as soon as it lets
go. `prepare` accepts everyone who waits and stops listening, for the child to bind. Those who are held
stay held, and `serve` relays each of them to the child, over loopback.

**What this way cannot do.** New connections are refused for two moments of a restart: from the old
child's end until this gate listens (it tries again every 5 ms), and from `prepare` until the child
listens (the program's own start-up time). Held clients reach the child with a loopback source address. A
child that does not set SO_REUSEADDR cannot bind while clients are held, as it could not with
connections in TIME_WAIT. `socket: fd` has none of these limits.

When the agent dies, connections in hand end; everything else is found again by the keeper's note.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

from agent.domain.events import Bus
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.kit.tasks import stop
from agent.traffic.base import BaseGate
from agent.traffic.page import Progress, Render
from agent.traffic.ports import near_address, port_failure
from agent.traffic.relay import relay
from agent.traffic.slots import BACKLOG, Notes
from agent.traffic.state import CLOSED, GateNote, GateState, Mode, NotNow, Verb, advance, check_side

log = logging.getLogger(__name__)

BIND_DEADLINE = 5.0  # seconds a port may take to become free where it should be free already
BIND_AGAIN = 0.005  # seconds between two tries: also the longest part of the first gap
BIND_PATIENT = 0.25  # the same once BIND_EAGER seconds have passed
BIND_EAGER = 60.0


class Door:
    """The gate's own listener on one port, while it has it."""

    def __init__(self, port: PortSpec) -> None:
        self.port = port
        self.listener: socket.socket | None = None
        self.error: OSError | None = None

    def open(self) -> socket.socket | None:
        """Try once to listen; on None, `error` says why not."""
        try:
            self.listener, self.error = self._bound(), None
        except OSError as error:
            self.error = error
        return self.listener

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.port.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # Inherited by what is accepted: held clients must not keep the child from binding.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.port.address, self.port.port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock


class OwnGate(BaseGate):
    """See the module, `state.Gate` for the verbs, and `BaseGate` for the arguments.

    Args:
        bind_deadline: seconds a port may take to become free where it should be free already.
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
        bind_deadline: float = BIND_DEADLINE,
    ) -> None:
        super().__init__(app, ports, notes, bus, maintenance=maintenance, progress=progress, render=render)
        self._bind_deadline = bind_deadline
        self._doors = [Door(port) for port in self.ports]
        self._seeker: asyncio.Task[Door | None] | None = None
        self._lent = False  # the port is left to a child

    async def open_ports(self) -> None:
        """Have the ports: listen in maintenance, or do nothing if the note says that a child has them.

        Raises OperatorNeeded(PortTaken | PortForbidden | AddressUnavailable), and none is open then; NotNow
        once the gate was given up.
        """
        async with self._changing:
            self._check_kept()
            if self._state != CLOSED:
                return
            note = self._noted()
            if note is not None:
                self._lent = bool(note.lent)
                await self._enter(note.state, until=note.until)
                return
            try:
                self._seek()
                await self._secure()
                await self._enter(advance(CLOSED, Verb.OPEN_PORTS))
            except BaseException:
                await self._shut()
                raise

    def slots(self, side: int, number: int = 0) -> list[tuple[str, int, str]]:
        """None: the child opens its sockets itself."""
        check_side(side, number)
        return []

    async def prepare(self, side: int, number: int = 0, *, blocking: bool = True) -> None:  # noqa: ARG002
        """The child of `side` is about to start: accept everyone who waits, and leave the port to it.

        Raises OperatorNeeded(PortTaken) when somebody else has it, NotNow when the gate is closed.
        """
        check_side(side, number)
        async with self._changing:
            if self._state == CLOSED:
                raise NotNow("a closed gate has no port to leave")
            if not self._lent:
                await self._secure()
                self._lent = True
                await self._renote()
                await self._shut()

    async def serve(self, side: int) -> None:
        """The child of `side` listens: relay to it everyone who is held."""
        async with self._changing:
            state = advance(self._state, Verb.SERVE, side)
            self._reclaim(state)
            await self._enter(state)

    async def canary(self, side: int, percent: int) -> None:
        """Raises NotNow: there is never a second child."""
        check_side(side)
        raise NotNow(f"a port that only one child can bind cannot give {percent} % to another")

    def probe_source(self, side: int, port_name: str = "", number: int = 0) -> str | None:  # noqa: ARG002
        """Any: there is never a second child."""
        check_side(side, number)
        return None

    def probe_target(self, side: int, port_name: str = "", number: int = 0) -> tuple[str, int, str | None]:
        """Host and port of the child: the public port itself, for there is never a second child."""
        check_side(side, number)
        return *near_address(self._port(port_name)), None

    async def steer_probe(self, side: int | None) -> None:
        """Nothing to steer: there is never a second child."""
        if side is not None:
            check_side(side)

    async def drained(self, side: int, deadline: float, number: int | None = None) -> bool:  # noqa: ARG002
        """True at once: who waits for the old child waits at a socket of its own."""
        check_side(side)
        return True

    async def take_over(self, side: int, number: int | None = None) -> None:  # noqa: ARG002
        """Nothing to take over: the queue ended with the child's socket."""
        check_side(side)

    async def close(self) -> None:
        """Give the ports up: connections in hand end soon, those that wait are reset."""
        async with self._changing:
            state = advance(self._state, Verb.CLOSE)
            if state == self._state:
                return
            await self._leave()
            await self._notes.note(self._note_key, None)
            self._become(state)

    async def _leave(self) -> None:
        await self._shut(accept=False)
        await super()._leave()

    def _reclaim(self, to: GateState) -> None:
        """The port is taken as soon as the child lets go of it."""
        self._lent = to.mode is Mode.OPEN

    def _note(self, state: GateState, until: float) -> GateNote:
        return GateNote(state.mode, state.side, until, [state.side or 0] if self._lent else [])

    async def _apply(self, state: GateState) -> None:
        if self._lent or state.mode is Mode.OPEN:
            await self._shut()
        else:
            self._seek()

    async def _receive(self, connection: socket.socket, port: PortSpec) -> None:
        if self._state.mode is Mode.HOLDING:
            self._tally.add("held")
        while self._state.mode is Mode.HOLDING:
            await self._moved.wait()
        if self._state.mode is not Mode.OPEN or not await relay(connection, near_address(port)):
            await self._responder.answer(connection)

    def _on_broken(self) -> None:
        """Cannot happen: nobody else has the gate's own listener."""

    def _look(self, held: GateState) -> None:
        """Who is held was counted on arrival."""

    def _expired(self, held: GateState) -> None:
        """Who is held heard it by the change of state."""

    def _seek(self) -> None:
        """Begin to listen where the gate does not yet."""
        if self._seeker is None or self._seeker.done():
            self._seeker = self._tasks.start(self._open_doors(), name="bind")

    async def _open_doors(self) -> Door | None:
        """Open every door, however long another process has the port; a door that never will open ends it."""
        started = asyncio.get_running_loop().time()
        while True:
            for door in self._doors:
                if door.listener is not None:
                    continue
                if (listener := door.open()) is not None:
                    self._acceptor.watch(listener, door.port)
                elif door.error is not None and door.error.errno != errno.EADDRINUSE:
                    log.error(
                        "%s cannot listen on port %d: %s", self.app, door.port.port, door.error.strerror
                    )
                    return door
            if all(door.listener is not None for door in self._doors):
                return None
            eager = asyncio.get_running_loop().time() - started < BIND_EAGER
            await asyncio.sleep(BIND_AGAIN if eager else BIND_PATIENT)

    async def _secure(self) -> None:
        """Wait until the gate listens everywhere. Raises OperatorNeeded when a port is not to be had."""
        assert self._seeker is not None
        await asyncio.wait([self._seeker], timeout=self._bind_deadline)
        for door in self._doors:
            if door.error is not None:
                raise await port_failure(door.port, door.error)

    async def _shut(self, *, accept: bool = True) -> None:
        """Stop listening, after accepting everyone who waits."""
        if self._seeker is not None:
            await stop(self._seeker)
            self._seeker = None
        for door in self._doors:
            if door.listener is not None:
                if accept:
                    self._acceptor.accept_all(door.listener, door.port)
                self._acceptor.unwatch(door.listener)
                door.listener.close()
                door.listener = None
