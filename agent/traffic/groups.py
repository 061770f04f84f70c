"""The slots of all ports of one app: opened, grown and closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from agent.domain.spec import PortSpec
from agent.traffic.ports import port_failure
from agent.traffic.slots import RESPONDER, SLOTS, SlotGroup, SlotHolder, slots_for
from agent.traffic.state import GateNote


class Groups:
    """One `SlotGroup` a port, while they are open.

    Args:
        holder: the keeper.
        ports: of the app.
        key: the keeper's key of a port's slots.
    """

    def __init__(self, holder: SlotHolder, ports: Sequence[PortSpec], key: Callable[[PortSpec], str]) -> None:
        self._holder = holder
        self._ports = ports
        self._key = key
        self._groups: list[SlotGroup] = []

    def __iter__(self) -> Iterator[SlotGroup]:
        return iter(self._groups)

    async def open(self, note: GateNote | None) -> None:
        """Have them, as an earlier gate's note says. Raises OperatorNeeded; some may be open then."""
        for port in self._ports:
            try:
                sockets = await self._holder.open(self._key(port), port.address, port.port, SLOTS)
            except OSError as error:
                raise await port_failure(port, error) from error
            sockets[RESPONDER].setblocking(False)
            order = note.order.get(port.name, []) if note is not None else []
            whole = sorted(order) == list(range(len(order))) and len(order) <= len(sockets)
            self._groups.append(SlotGroup(self._key(port), port, sockets, order if whole else []))

    async def grow(self, number: int) -> bool:
        """Have slots for this instance; whether some had to be opened. Raises OperatorNeeded."""
        small = [group for group in self._groups if len(group.sockets) < slots_for(number)]
        for group in small:
            port = group.port
            try:
                group.grow(await self._holder.open(group.key, port.address, port.port, slots_for(number)))
            except OSError as error:
                raise await port_failure(port, error) from error
        return bool(small)

    def steer(
        self, slots: Sequence[int], probe: int | None, canary: tuple[Sequence[int], int] | None
    ) -> None:
        """See `SlotGroup.steer`. Raises OSError."""
        for group in self._groups:
            group.steer(slots, probe, canary)

    @property
    def order(self) -> dict[str, list[int]]:
        """The order of each port's slots, for a note."""
        return {group.port.name: group.order for group in self._groups}

    def broken(self) -> dict[str, list[int]]:
        """Slots that do not listen any more, by the key of their group."""
        return {group.key: broken for group in self._groups if (broken := group.broken())}

    def mended(self, broken: dict[str, list[int]]) -> dict[str, list[int]]:
        """What `order` will be once they are back."""
        return {group.port.name: group.mended_order(broken.get(group.key, [])) for group in self._groups}

    def mend(self, broken: dict[str, list[int]]) -> None:
        """Put them back. Raises OSError."""
        for group in self._groups:
            found = broken.get(group.key, [])
            group.mend(found, group.mended_order(found))

    def close(self) -> None:
        """Close the agent's duplicates; the keeper's stay."""
        for group in self._groups:
            group.close()
        self._groups = []

    async def give_up(self) -> None:
        """Close the keeper's. Raises KeeperLost, TimeoutError."""
        for port in self._ports:
            await self._holder.close_slots(self._key(port))
