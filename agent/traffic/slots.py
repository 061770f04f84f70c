"""Slots: the listening sockets of one public port, one SO_REUSEPORT group, held by the keeper.

Three static slots a port: 0 is the responder's, 1 and 2 belong to side 0 and side 1. They are opened
once and outlive the agent, so that a slot's index in the group never moves by itself. What this
module knows of the kernel (each fact has a test):

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.domain.spec import PortSpec
from agent.traffic.steering import (
    SERVING_SOURCE,
    Program,
    always,
    attach,
    probe_first,
    split_share,
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


def slot_of(side: int) -> int:
    """The slot that belongs to a side."""
    return side + 1


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
    order: list[int] = field(default_factory=lambda: list(range(SLOTS)))

    def steer(self, slot: int, probe: int | None = None, canary: tuple[int, int] | None = None) -> None:
        """New connections to `slot`, those of the prober to slot `probe`. Raises OSError.

        Args:
            slot: of those who are not told apart.
            probe: of the prober, who comes from PROBE_SOURCE.
            canary: a slot and its share of the new connections in percent; probes from SERVING_SOURCE
                reach `slot` in any case.
        """
        target = self.order.index(slot)
        program: Program = always(target)
        if canary is not None:
            few, percent = canary
            shared = split_share(percent, self.order.index(few), target)
            program = probe_first(target, shared, SERVING_SOURCE, self.port.address)
        if probe is not None and probe != slot:
            program = probe_first(self.order.index(probe), program, address=self.port.address)
        attach(self.sockets[RESPONDER], program)

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

        Computed again before they are back, it is the same: so it can be noted first. (Of three slots at
        most one moves, in whatever order several have left.)
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
