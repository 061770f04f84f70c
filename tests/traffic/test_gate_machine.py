"""Any sequence of verbs, agents and mishaps on real sockets: a new connection comes where the state says.

The model is the table of `state.py` alone. Nobody but the test accepts at the slots of the sides, so it sees
where each connection came; what the gate itself accepts is the page or, relayed, whoever is served.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.domain.spec import MaintenanceSpec
from agent.traffic.slots import accept_waiting
from agent.traffic.state import CLOSED, SIDES, Mode, NotNow, Verb, advance
from agent.traffic.steering import PROBE_SOURCE
from tests.traffic.support import Stage, connect, eventually, stage, who

T = TypeVar("T")
SIDE = st.sampled_from(SIDES)
PATIENT = MaintenanceSpec(hold=60.0)
HASTY = MaintenanceSpec(hold=0.0)


def accepted_from(slot: socket.socket) -> list[tuple[str, int]]:
    """Accept and close everything that waits; the clients' addresses."""
    peers = []
    while (connection := accept_waiting(slot)) is not None:
        with connection, suppress(OSError):  # a departed client has no address any more
            peers.append(connection.getpeername())
    return peers


class Gates(RuleBasedStateMachine):
    """A gate on one port, and the state that the table gives for what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.on: Stage
        self.state = CLOSED
        self.closed = False

    @initialize()
    def begin(self) -> None:
        """A gate that was never open."""
        self.on = self.run(self.stack.enter_async_context(stage()))
        self.run(self._another())

    async def _another(self) -> None:
        self.gate = self.on.slot_gate()

    def teardown(self) -> None:
        """Nothing is left."""
        self.run(self.stack.aclose())
        self.runner.close()

    def run(self, what: Awaitable[T]) -> T:
        """On this machine's loop."""

        async def awaited() -> T:
            return await what

        return self.runner.run(awaited())

    def ask(
        self, verb: Verb, call: Callable[[], Awaitable[None]], side: int | None = None, share: int = 0
    ) -> None:
        """Ask the gate, and the table; both refuse, or neither."""
        try:
            state = advance(self.state, verb, side, share)
        except NotNow:
            with pytest.raises(NotNow):
                self.run(call())
        else:
            self.run(call())
            self.state = state

    # -- verbs -------------------------------------------------------------------------------------

    @precondition(lambda self: self.state == CLOSED)
    @rule()
    def open_ports(self) -> None:
        """The first time; after a close it takes another gate."""
        if self.closed:
            with pytest.raises(NotNow):
                self.run(self.gate.open_ports())
            self.run(self._another())
        self.closed = False
        self.ask(Verb.OPEN_PORTS, self.gate.open_ports)

    @rule()
    def maintain(self) -> None:
        self.ask(Verb.MAINTAIN, self.gate.maintain)

    @rule(side=SIDE)
    def serve(self, side: int) -> None:
        self.ask(Verb.SERVE, lambda: self.gate.serve(side), side)

    @rule(side=SIDE, share=st.integers(1, 99))
    def canary(self, side: int, share: int) -> None:
        self.ask(Verb.CANARY, lambda: self.gate.canary(side, share), side, share)

    @rule(side=SIDE)
    def hold(self, side: int) -> None:
        self.gate.configure(PATIENT)
        self.ask(Verb.HOLD, lambda: self.gate.hold(side), side)

    @precondition(lambda self: self.state.mode is not Mode.HOLDING)  # it would not begin anew
    @rule(side=SIDE)
    def hold_and_lose_patience(self, side: int) -> None:
        self.gate.configure(HASTY)
        self.ask(Verb.HOLD, lambda: self.gate.hold(side), side)
        if self.state.mode is Mode.HOLDING:
            self.run(eventually(lambda: self.gate.state.mode is Mode.MAINTENANCE, "the end of the hold"))
            self.state = advance(self.state, Verb.EXPIRE)

    @rule()
    def close(self) -> None:
        self.closed |= self.state != CLOSED
        self.ask(Verb.CLOSE, self.gate.close)

    # -- what changes no state ---------------------------------------------------------------------

    @rule(side=SIDE)
    def prepare(self, side: int) -> None:
        if self.state == CLOSED:
            with pytest.raises(NotNow):
                self.run(self.gate.prepare(side))
        else:
            self.run(self.gate.prepare(side))

    @rule(side=SIDE)
    def take_over(self, side: int) -> None:
        self.run(self.gate.take_over(side))

    @precondition(lambda self: self.state != CLOSED)
    @rule(side=SIDE)
    def probe(self, side: int) -> None:
        """A probe reaches the side it is meant for, whatever everyone else gets."""
        self.run(self.gate.steer_probe(side))
        self.run(self._comes_to([side], PROBE_SOURCE))
        self.run(self.gate.steer_probe(None))

    @precondition(lambda self: self.state != CLOSED)
    @rule()
    def another_agent(self) -> None:
        """The agent dies, and the next one goes on."""
        self.run(self.gate.detach())
        self.run(self._another())
        self.run(self.gate.open_ports())

    @precondition(lambda self: self.state != CLOSED)
    @rule(side=SIDE)
    def shutdown(self, side: int) -> None:
        """A child shuts its listening socket down, which is its slot; any verb mends that."""
        self.on.slot(self.gate, side).shutdown(socket.SHUT_RDWR)
        self.run(self.gate.take_over(1 - side))

    # -- what holds always -------------------------------------------------------------------------

    @invariant()
    def a_new_connection_comes_where_the_state_says(self) -> None:
        assert self.gate.state == self.state
        if self.state == CLOSED:
            with pytest.raises(ConnectionRefusedError):
                self.run(connect(self.on.port))
        elif self.state.side is None:
            assert self.run(who(self.on.port)) == "503"
        elif self.state.mode is Mode.CANARY:
            self.run(self._comes_to(SIDES))
        else:
            self.run(self._comes_to([self.state.side]))

    async def _comes_to(self, sides: tuple[int, ...] | list[int], source: str | None = None) -> None:
        """A client that connects comes to one of these sides; or, relayed for it, the gate itself."""
        slots = [self.on.slot(self.gate, side) for side in sides]
        for slot in slots:
            accepted_from(slot)
        with await connect(self.on.port, source) as client:
            if len(sides) == 1:
                assert client.getsockname() in accepted_from(slots[0])
            else:
                await eventually(lambda: sum(len(accepted_from(slot)) for slot in slots), "a connection")


TestGates = Gates.TestCase
TestGates.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
