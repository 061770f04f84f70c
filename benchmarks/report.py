"""How results are told: a small table for people, JSON for programs."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Report:
    """One benchmark's results. `rows` are name, value and remark; `data` is all of it."""

    title: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str, value: str, remark: str = "") -> None:
        """A line of the table."""
        self.rows.append((name, value, remark))

    def text(self) -> str:
        """The table."""
        widths = [max((len(row[column]) for row in self.rows), default=0) for column in (0, 1)]
        lines = [f"  {n.ljust(widths[0])}  {v.rjust(widths[1])}  {r}".rstrip() for n, v, r in self.rows]
        return "\n".join([self.title, *lines])


def machine() -> dict[str, Any]:
    """The shape of what was measured on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "arch": platform.machine(),
        "python": platform.python_version(),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{seconds * 1000:.1f} ms"
