"""What this package needs of the keeper; `agent.keeper.client.KeeperClient` is it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from agent.keeper.protocol import ChildRecord, ChildRequest


class Keeper(Protocol):
    """The owner of all children. Every call raises KeeperLost (a ConnectionError) once it is gone."""

    @property
    def children(self) -> Mapping[str, ChildRecord]:
        """Running and ended children by name, kept current."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """What agents left word of, kept current."""
        ...

    async def note(self, key: str, value: str | None) -> None:
        """Leave, replace or (None) remove a note."""

    @property
    def gives_stdio(self) -> bool:
        """Whether `spawn` takes `stdio`: a keeper of an earlier version does not."""
        ...

    async def spawn(self, request: ChildRequest, stdio: Sequence[int] = ()) -> ChildRecord:
        """Start a child, with these for its descriptors 0, 1 and 2. Raises SpawnFailed."""
        ...

    async def signal(self, child: str, signum: int, *, group: bool = True) -> bool:
        """Signal a child or its group; whether anybody was there. Raises LookupError."""
        ...

    async def wait(self, child: str) -> ChildRecord:
        """Wait for a child's end. Raises LookupError."""
        ...

    async def taken(self, child: str, names: Collection[str]) -> ChildRecord:
        """Wait until an adopted child has bound these of its ports, or has ended. Raises LookupError."""
        ...

    async def until(self, child: str, holds: Callable[[ChildRecord], bool]) -> ChildRecord:
        """Wait until something holds of a child, asked at each word about it. Raises LookupError."""
        ...

    async def tail(self, child: str, lines: int = 200) -> list[str]:
        """A child's last lines. Raises LookupError."""
        ...

    async def forget(self, child: str) -> None:
        """Drop an ended child."""
