"""One of the agent's own settings: its flag, its variable, how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `many` settings may be given more than once (comma-separated in variables)."""

    name: str  # the field of Settings
    flag: str
    metavar: str
    parse: Callable[[str], Any]
    help: str
    many: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "EMPTYBOX_" + self.flag.removeprefix("--").replace("-", "_").upper()
