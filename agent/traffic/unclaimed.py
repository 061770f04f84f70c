"""Ports of an app that the keeper holds open, and no gate knows: whoever opened or closed them has died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from agent.traffic.slots import SlotHolder
from agent.traffic.state import CLOSED, Gate


class Holder(SlotHolder, Protocol):
    """What is needed of the keeper."""

    @property
    def groups(self) -> Mapping[str, object]:
        """The slots it holds, by key, kept current."""
        ...


def apps_with_ports(holder: Holder) -> set[str]:
    """Apps for which the keeper holds ports, or has a note of one."""
    noted = {key.split(" ")[1] for key in holder.notes if key.startswith("gate ")}
    return noted | {key.partition("/")[0] for key in holder.groups}


async def give_up_unclaimed(holder: Holder, app: str, gates: Iterable[Gate]) -> None:
    """Close an app's slots, and forget its notes, that belong to none of its open gates.

    A client of such a port would wait for an answer that nobody gives. Raises KeeperLost, TimeoutError.
    """
    claimed = {key for gate in gates if gate.state != CLOSED for key in gate.keys}
    for key in [key for key in holder.groups if key.startswith(f"{app}/") and key not in claimed]:
        await holder.close_slots(key)
    for key in [key for key in holder.notes if key.startswith(f"gate {app} ") and key not in claimed]:
        await holder.note(key, None)
