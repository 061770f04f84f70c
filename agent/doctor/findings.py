"""The form of a finding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How it is with one thing."""

    OK = "ok"
    WARN = "warn"  # works, but worth a look
    BAD = "bad"  # does not work
    UNKNOWN = "unknown"  # could not be found out


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it."""

    subject: str
    verdict: Verdict
    told: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "verdict": str(self.verdict)}
