"""What a program may use and what is kept from it: one value, made for an app and used for all it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.domain.spec import LimitsSpec
from agent.process.cgroups import Cgroups


@dataclass(frozen=True, slots=True)
class Bounds:
    """`umask`, `nice`, `oom`, `rlimits` and `confine` as in a `ChildRequest`; `limits` hold in `cgroups`.

    `tier` is the name of the isolation that `confine` stands for.
    """

    umask: int = 0o022
    nice: int | None = None
    oom: int | None = None
    rlimits: Mapping[str, int] = field(default_factory=dict)
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    cgroups: Cgroups | None = None
    tier: str = "none"
    confine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limited(self) -> bool:
        """Whether any limit is asked for."""
        return self.limits != LimitsSpec()

    @property
    def memory_words(self) -> str:
        """The limit of memory, for people."""
        return f"the memory limit of {size_words(self.limits.memory)}"


def size_words(size: int) -> str:
    """Bytes as they are written in a state: 512M."""
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size} bytes"
