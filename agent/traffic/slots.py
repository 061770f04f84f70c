"""Slots: the listening sockets of one public port, one SO_REUSEPORT group, held by the keeper.

Three static slots a port: 0 is the responder's, 1 and 2 belong to side 0 and side 1; and two more, one a
side, for each further instance of its app. They are opened once and outlive the agent, so that a slot's
index in the group never moves by itself. What this module knows of the kernel (each fact has a test):

- The file status flags and the backlog of a slot are shared by every duplicate, children's included.
  A child that wants a blocking accept must find one, whatever the last child did: `lend`.
- `listen` on a listening socket only changes its backlog.
- A child that calls shutdown(2) on its slot takes it out of the group, and the last member moves into
  the hole. `broken` and `mend` put it back, at the end; `order` keeps count of who has which index.
  (This needs a slot that was bound to a port by number, not to one of the kernel's choice.)
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.domain.spec import PortSpec
from agent.traffic.steering import (
    SERVING_SOURCE,
    attach,
    by_number,
    numbered_source,
    probe_first,
    split_share,
    spread,
)

RESPONDER = 0
SLOTS = 3
BACKLOG = 4096  # clients that can wait in one slot; the kernel takes the lower of this and net.core.somaxconn
_LISTEN = 10  # TCP_LISTEN in tcpi_state
_WAITING = struct.Struct("=I")
_WAITING_OFFSET = 24  # tcpi_unacked: of a listener, the length of its accept queue
_ROOM_OFFSET = 28  # tcpi_sacked: of a listener, the most its accept queue may hold


class Notes(Protocol):
    """What an `OwnGate` needs of the keeper."""

    @property
    def notes(self) -> Mapping[str, str]:
        """All notes, kept current."""
        ...

    async def note(self, key: str, value: str | None) -> None:
        """Leave, replace or (None) remove a note."""


class SlotHolder(Notes, Protocol):
    """What a `SlotGate` needs of the keeper."""

    async def open(
        self, key: str, address: str, port: int, count: int, backlog: int = BACKLOG
    ) -> list[socket.socket]:
        """Duplicates of the slots under `key`, which are opened if they are not yet. Raises OSError."""
        ...

    async def close_slots(self, key: str) -> None:
        """Close the slots under `key`."""


def slot_of(side: int, number: int = 0) -> int:
    """The slot that belongs to an instance of a side."""
    return 1 + side + 2 * number


def slots_for(number: int) -> int:
    """How many slots a port has for this instance and those before it, on both sides."""
    return slot_of(1, number) + 1


def listening(listener: socket.socket) -> bool:
    """Whether the socket is still a listener (shutdown(2) on any duplicate ends that)."""
    return listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _LISTEN


def waiting(listener: socket.socket) -> int:
    """Connections in the accept queue, departed clients included; 0 for a socket that does not listen."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING_OFFSET + _WAITING.size)
    if info[0] != _LISTEN:
        return 0
    (count,) = _WAITING.unpack_from(info, _WAITING_OFFSET)
    return int(count)


def room(listener: socket.socket) -> int:
    """Connections that may wait in the accept queue: what was asked for, or what the host allows."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROOM_OFFSET + _WAITING.size)
    (count,) = _WAITING.unpack_from(info, _ROOM_OFFSET)
    return int(count)


def accept_waiting(listener: socket.socket) -> socket.socket | None:
    """Accept one waiting connection (non-blocking from then on); None when there is none.

    Never blocks, and leaves a slot's flags as they were: a child may share them and rely on a blocking
    accept. For that child the flag differs only while a connection is known to wait.
    Raises OSError (EMFILE and its kind; EINVAL when the socket does not listen any more).
    """
    flags = fcntl.fcntl(listener, fcntl.F_GETFL)
    blocking = not flags & os.O_NONBLOCK
    if blocking:
        if listening(listener) and not waiting(listener):
            return None
        fcntl.fcntl(listener, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, InterruptedError, ConnectionAbortedError):
        return None
    finally:
        if blocking:
            fcntl.fcntl(listener, fcntl.F_SETFL, flags)
    connection.setblocking(False)
    return connection


@dataclass
class SlotGroup:
    """The agent's duplicates of one port's slots. `order[i]` is the slot that has index `i`."""

    key: str
    port: PortSpec
    sockets: list[socket.socket]
    order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What the keeper opened after the order was last noted is at the end.
        self.order = [*self.order, *(slot for slot in range(len(self.sockets)) if slot not in self.order)]

    def grow(self, sockets: Sequence[socket.socket]) -> None:
        """Take duplicates of the whole group, which has become larger; those it has already are closed."""
        for known in sockets[: len(self.sockets)]:
            known.close()
        for slot in range(len(self.sockets), len(sockets)):
            self.sockets.append(sockets[slot])
            self.order.append(slot)

    def steer(
        self, slots: Sequence[int], probe: int | None = None, canary: tuple[Sequence[int], int] | None = None
    ) -> None:
        """New connections to `slots`, one as often as another; the prober's to `probe`. Raises OSError.

        In a group that has grown a prober reaches each slot by its number, see `probe_source`.

        Args:
            slots: of those who are not told apart.
            probe: of the prober, who comes from PROBE_SOURCE.
            canary: slots and their share of the new connections in percent; probes from SERVING_SOURCE
                reach `slots` in any case.
        """
        program = others = spread(self._indices(slots))
        if canary is not None:
            few, percent = canary
            shared = split_share(percent, spread(self._indices(few)), others)
            program = probe_first(others, shared, SERVING_SOURCE, self.port.address)
        if probe is not None and [probe] != list(slots):
            program = probe_first(spread(self._indices([probe])), program, address=self.port.address)
        if len(self.sockets) > SLOTS:
            program = by_number(program, self.port.address)
        attach(self.sockets[RESPONDER], program)

    def of(self, side: int, number: int | None = None) -> list[int]:
        """The slots of a side that there are, or that of one instance."""
        return list(range(slot_of(side), len(self.sockets), 2)) if number is None else [slot_of(side, number)]

    def _indices(self, slots: Sequence[int]) -> list[int]:
        return [self.order.index(slot) for slot in slots]

    def probe_source(self, slot: int) -> str | None:
        """From where a prober reaches a slot whatever is steered; None in a group of two sides only."""
        return numbered_source(self.order.index(slot)) if len(self.sockets) > SLOTS else None

    def lend(self, slot: int, *, blocking: bool = True) -> None:
        """Make a slot as a child expects it: blocking (sd_listen_fds(3)) or not, with the whole backlog."""
        listener = self.sockets[slot]
        os.set_blocking(listener.fileno(), blocking)
        if listening(listener):
            listener.listen(BACKLOG)

    def broken(self) -> list[int]:
        """Slots that do not listen any more."""
        return [slot for slot, member in enumerate(self.sockets) if not listening(member)]

    def mended_order(self, broken: list[int]) -> list[int]:
        """The order once `broken` are back: the last member has moved into each hole, they come at the end.

        Computed again before they are back, it is the same: so it can be noted first. Of three slots at
        most one moves, in whatever order several have left; of more this is right if they left one after
        the other, each seen: so instances are stopped like that.
        """
        order = list(self.order)
        for slot in broken:
            hole = order.index(slot)
            order[hole] = order[-1]
            order.pop()
        return order + broken

    def mend(self, broken: list[int], order: list[int]) -> None:
        """Put `broken` back into the group, by which `order` becomes true. Raises OSError."""
        self.order = order
        for slot in broken:
            self.sockets[slot].listen(BACKLOG)

    def close(self) -> None:
        """Close the agent's duplicates; the keeper's stay."""
        for member in self.sockets:
            member.close()
