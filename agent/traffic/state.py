"""The states of a gate and the one table of its transitions.

::

                 open_ports                     serve(s)
      closed ─────────────────► maintenance ─────────────────► open(s) ──┐
        ▲                         │  ▲   ▲ ◄──────────────────── │  ▲    │ serve(other): the flip
        │                 hold(s) │  │   │       maintain        │  └────┘
        │ close                   │  │   │                       │
        │ (from every state)      ▼  │   │ expire, maintain      │
        └────────────────────── holding(s) ◄─────────────────────┘
                                     │            hold(s)
                                     └──────────► open(s)   serve(s)

                  canary(o, n %)               canary(o, m %): another share
      open(s) ────────────────────► canary(s, o, n %) ──┐
         ▲                            │  │  │  ▲────────┘
         └────────────────────────────┘  │  └──► maintenance   maintain
           serve(s): given up            └─────► holding(x)    hold(x)
           serve(o): passed

closed: the gate has no port; once it had one, it is not opened again, another gate is made. maintenance:
the responder answers with the page. holding(s): clients wait for the child that side `s` will get;
`expire` is the end of their patience. open(s): the child of side `s` is served. canary(s, o, n %): so it
is, but for n percent of the new connections, which go to the child of the other side. A side is 0 or 1;
releases alternate between them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from agent.domain.spec import MaintenanceSpec

SIDES = (0, 1)
SHARES = range(1, 100)  # percent


class Mode(StrEnum):
    """What the gate does with a new connection."""

    CLOSED = "closed"
    MAINTENANCE = "maintenance"
    HOLDING = "holding"
    OPEN = "open"
    CANARY = "canary"


class Verb(StrEnum):
    """What can be asked of a gate; EXPIRE is its own."""

    OPEN_PORTS = "open_ports"
    MAINTAIN = "maintain"
    HOLD = "hold"
    SERVE = "serve"
    CANARY = "canary"
    EXPIRE = "expire"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[Mode, Verb], Mode] = {
    (Mode.CLOSED, Verb.OPEN_PORTS): Mode.MAINTENANCE,
    (Mode.CLOSED, Verb.CLOSE): Mode.CLOSED,
    (Mode.MAINTENANCE, Verb.MAINTAIN): Mode.MAINTENANCE,
    (Mode.MAINTENANCE, Verb.HOLD): Mode.HOLDING,
    (Mode.MAINTENANCE, Verb.SERVE): Mode.OPEN,
    (Mode.MAINTENANCE, Verb.CLOSE): Mode.CLOSED,
    (Mode.HOLDING, Verb.MAINTAIN): Mode.MAINTENANCE,
    (Mode.HOLDING, Verb.HOLD): Mode.HOLDING,
    (Mode.HOLDING, Verb.EXPIRE): Mode.MAINTENANCE,
    (Mode.HOLDING, Verb.SERVE): Mode.OPEN,
    (Mode.HOLDING, Verb.CLOSE): Mode.CLOSED,
    (Mode.OPEN, Verb.MAINTAIN): Mode.MAINTENANCE,
    (Mode.OPEN, Verb.HOLD): Mode.HOLDING,
    (Mode.OPEN, Verb.SERVE): Mode.OPEN,
    (Mode.OPEN, Verb.CANARY): Mode.CANARY,
    (Mode.OPEN, Verb.CLOSE): Mode.CLOSED,
    (Mode.CANARY, Verb.MAINTAIN): Mode.MAINTENANCE,
    (Mode.CANARY, Verb.HOLD): Mode.HOLDING,
    (Mode.CANARY, Verb.SERVE): Mode.OPEN,
    (Mode.CANARY, Verb.CANARY): Mode.CANARY,
    (Mode.CANARY, Verb.CLOSE): Mode.CLOSED,
}


WITH_SIDE = (Mode.HOLDING, Mode.OPEN, Mode.CANARY)


class NotNow(RuntimeError):
    """A verb that makes no sense in the gate's present state: a mistake of the caller."""


@dataclass(frozen=True, slots=True)
class GateState:
    """A mode, and the side it is about (None in closed and maintenance).

    In canary `side` is the one that serves, and the other one gets `percent` of the new connections.
    """

    mode: Mode
    side: int | None = None
    percent: int = 0

    def __post_init__(self) -> None:
        if (self.mode in WITH_SIDE) != (self.side in SIDES):
            raise ValueError(f"a gate cannot be {self.mode.value} with side {self.side}")
        if (self.mode is Mode.CANARY) != (self.percent in SHARES) or (self.percent and self.side is None):
            raise ValueError(f"a gate cannot be {self.mode.value} with a share of {self.percent} %")

    def __str__(self) -> str:
        if self.side is None:
            return self.mode.value
        share = "" if self.tried is None else f", {self.tried}, {self.percent} %"
        return f"{self.mode.value}({self.side}{share})"

    @property
    def tried(self) -> int | None:
        """The side that gets a canary's share."""
        return None if self.mode is not Mode.CANARY or self.side is None else 1 - self.side

    def reaches(self, side: int) -> bool:
        """Whether new connections go, or will go, to `side`."""
        return side == self.side or self.mode is Mode.CANARY


CLOSED = GateState(Mode.CLOSED)


def check_side(side: int, number: int = 0) -> None:
    """Raises ValueError when there is no such side, or no such instance where a side is one child."""
    if side not in SIDES:
        raise ValueError(f"there is no side {side}, only {SIDES[0]} and {SIDES[1]}")
    if number:
        raise ValueError(f"there is no instance {number} where a side is one child")


def advance(state: GateState, verb: Verb, side: int | None = None, percent: int = 0) -> GateState:
    """The state after `verb`. Raises NotNow when the table has no such transition.

    `side` counts for HOLD, SERVE and CANARY, where it is the one that gets `percent`; ValueError for a bad
    side or share, NotNow for a canary of the side that serves.
    """
    mode = TRANSITIONS.get((state.mode, verb))
    if mode is None or (mode is Mode.CANARY and side == state.side):
        raise NotNow(f"a gate that is {state} cannot {verb.value}{'' if mode is None else f' side {side}'}")
    if mode is Mode.CANARY:
        check_side(-1 if side is None else side)
        return GateState(mode, state.side, percent)
    return GateState(mode, side if mode in WITH_SIDE else None)


class GateNote(msgspec.Struct, frozen=True):
    """What a gate leaves with the keeper, so that its successor changes nothing for traffic.

    `until` is when a hold ends (time.monotonic, which all processes of one boot share), `lent` the
    sides at which a child may be (that of an instance n has 2n added), `order` each port's slots in the
    order of the kernel's indices, `private` the private ports of relayed children by side and name,
    `percent` a canary's share, `staff` the instances that get a side's clients, where it is not the first.
    """

    mode: Mode
    side: int | None = None
    until: float = 0.0
    lent: list[int] = []
    order: dict[str, list[int]] = {}
    private: dict[int, dict[str, int]] = {}
    percent: int = 0
    staff: dict[int, list[int]] = {}

    def encode(self) -> str:
        """As text for the keeper."""
        return msgspec.json.encode(self).decode()

    @property
    def state(self) -> GateState:
        """The noted state. Raises ValueError when its parts contradict one another."""
        return GateState(self.mode, self.side, self.percent)


def read_note(notes: Mapping[str, str], key: str) -> GateNote | None:
    """The note under `key`; None when there is none, or none that makes sense."""
    try:
        note = msgspec.json.decode(notes[key], type=GateNote)
        return note if note.state.mode is not Mode.CLOSED else None
    except (KeyError, ValueError):  # msgspec's errors are ValueErrors
        return None


class Gate(Protocol):
    """The owner of an app's public ports: `SlotGate` (socket: fd), `RelayGate` or `OwnGate` (socket: own).

    Verbs of one gate are called one at a time by the app's lane. Each raises NotNow in a state that
    does not know it. Times are seconds.
    """

    @property
    def state(self) -> GateState:
        """What the gate does now."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The keeper's keys of what it holds for this gate: slots and a note."""
        ...

    def configure(self, maintenance: MaintenanceSpec) -> None:
        """Use another page, hold and retry_after from now on."""

    async def open_ports(self) -> None:
        """Have the ports: maintenance when they are new, else what the keeper's note says.

        Raises OperatorNeeded(PortTaken | PortForbidden | AddressUnavailable); NotNow once it was given up by
        `close` or `detach`.
        """

    def slots(self, side: int, number: int = 0) -> list[tuple[str, int, str]]:
        """(key, index, port name) of an instance's listening sockets for `ChildRequest.slots`."""
        ...

    def child_ports(self, side: int) -> dict[str, int]:
        """The numbers, by name, at which the child of `side` listens; known once it is prepared."""
        ...

    async def maintain(self) -> None:
        """New connections get the maintenance page."""

    async def hold(self, side: int) -> None:
        """New connections wait for the child that `side` will get, for `hold` seconds at most."""

    async def prepare(self, side: int, number: int = 0, *, blocking: bool = True) -> None:
        """Call right before an instance of `side` is started. One that is there already is left alone.

        An instance gets no clients before `staff` names it, but for the first one of a side that begins.

        `blocking` is how the child finds the sockets it is handed. sd_listen_fds(3) says blocking, and
        servers that want it otherwise change it; nginx, which inherits by its variable NGINX, does not,
        and with more than one worker gets stuck in accept on a blocking socket.
        """

    async def serve(self, side: int) -> None:
        """New connections go to the child of `side`: the flip."""

    async def staff(self, side: int, numbers: Collection[int]) -> None:
        """These instances get the clients of `side`, which are the first one's until this is called.

        A gate at which a side is one child knows no other number than 0.
        """

    def staffed(self, side: int) -> Sequence[int]:
        """The instances that get the clients of `side`."""
        ...

    async def canary(self, side: int, percent: int) -> None:
        """`percent` (1 to 99) of the new connections go to the child of `side`, the others as before.

        Only while the other side is served. `serve` ends it, for one or the other.
        """

    def probe_source(self, side: int, port_name: str = "", number: int = 0) -> str | None:
        """The source address from which probes reach an instance of `side` now (None: any)."""
        ...

    def probe_target(self, side: int, port_name: str = "", number: int = 0) -> tuple[str, int, str | None]:
        """Where the child of `side` is probed: host, port, source address to bind (None: any)."""
        ...

    async def steer_probe(self, side: int | None) -> None:
        """Let probes reach `side` whatever serves; None ends that. `serve` ends it too."""

    async def drained(self, side: int, deadline: float, number: int | None = None) -> bool:
        """Wait until nothing waits for the children of `side`, or that instance; False at the deadline."""
        ...

    async def connections_gone(self, side: int, pid: int, deadline: float) -> bool:
        """Wait until the child of `side`, process `pid`, has no open connection; False at the deadline."""
        ...

    async def take_over(self, side: int, number: int | None = None) -> None:
        """The children of `side`, or that instance, end or have ended: who still comes is taken care of."""

    async def close(self) -> None:
        """Give the ports up for good."""

    async def detach(self) -> None:
        """The agent ends, the ports stay: leave everything to the keeper as it is."""
