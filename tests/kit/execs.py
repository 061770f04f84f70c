"""Commands in apps of a control that is played: `say` is what one says and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.domain.control import Ends, ExecEnd


@dataclass
class PlayedExecs:
    """Remembers what was asked for, says what it was told to say, and what it read."""

    said: list[tuple[str, bytes]] = field(default_factory=list)
    error: Exception | None = None
    end: ExecEnd = field(default_factory=lambda: ExecEnd(0, None, None, "", 0.1))
    asked: list[tuple[str, str, tuple[str, ...], float]] = field(default_factory=list)
    read: bytes | None = None

    async def run(self, app: str, by: str, command: Sequence[str], timeout: float, ends: Ends) -> ExecEnd:
        """Play it."""
        self.asked.append((app, by, tuple(command), timeout))
        if self.error is not None:
            raise self.error
        await ends.started()
        for kind, data in self.said:
            await ends.give(kind, data)
        if ends.input is not None:
            self.read = b"".join([chunk async for chunk in ends.input if isinstance(chunk, bytes)])
        return self.end

    async def history(self, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """None."""
        return []
