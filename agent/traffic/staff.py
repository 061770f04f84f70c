"""Who stands behind a gate: at which slots children may be, and which of them get a side's clients."""

from __future__ import annotations

from collections.abc import Collection

from agent.traffic.slots import slot_of
from agent.traffic.state import SIDES, GateNote


class Staff:
    """The instances of both sides. A side has its first one, until another word is given.

    `lent` are the slots at which a child may be, so that they are its own.
    """

    def __init__(self, note: GateNote | None = None) -> None:
        """Everyone whom the note of an earlier gate names."""
        lent, staff = (note.lent, note.staff) if note is not None else ([], {})
        self.lent = {place + 1 for place in lent if place >= 0}
        self._numbers = {side: numbers for side, numbers in staff.items() if side in SIDES and numbers}

    def numbers(self, side: int) -> list[int]:
        """The instances that get the side's clients."""
        return self._numbers.get(side, [0])

    def appoint(self, side: int, numbers: Collection[int]) -> None:
        """These get the side's clients from now on. Raises ValueError for nobody."""
        if not numbers or min(numbers) < 0:
            raise ValueError("a side needs an instance for its clients")
        self._numbers[side] = sorted(set(numbers))

    def alone(self, side: int) -> None:
        """The side begins anew, with its first instance."""
        self._numbers.pop(side, None)

    def slots(self, side: int) -> list[int]:
        """The slots of those who get the side's clients."""
        return [slot_of(side, number) for number in self.numbers(side)]

    def lend(self, side: int) -> None:
        """Who gets the side's clients has their slots."""
        self.lent.update(self.slots(side))

    def reclaim(self, side: int) -> None:
        """There is no child of the side any more."""
        self.lent = {slot for slot in self.lent if (slot - 1) % 2 != side}

    def noted(self) -> tuple[list[int], dict[int, list[int]]]:
        """`lent` and `staff` of a `GateNote`."""
        return sorted(slot - 1 for slot in self.lent), dict(self._numbers)
