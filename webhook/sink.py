"""The seam to whoever uses this package: where pushes go, and who hears of what was turned away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from webhook.event import ArtifactEvent, Hint, PushEvent

ACCEPTED, MERGED, IGNORED, DUPLICATE, REJECTED = "accepted", "merged", "ignored", "duplicate", "rejected"
SUCCESS = frozenset({"succeeded", "unchanged"})
ON_PROBATION = "probation"  # what was pushed runs and is watched: the last word is not said yet


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a push: accepted (`sync` is new), merged (`sync` was waiting) or ignored (`reason`)."""

    verdict: str
    sync: str = ""
    reason: str = ""


class Sink(Protocol):
    """Takes verified deliveries. Everything here is called on the event loop; only `wait` may take time."""

    def accept(self, pushes: Sequence[PushEvent]) -> Verdict:
        """Judge the pushes of one delivery, of which there is at least one, and act on them."""

    def accept_artifact(self, event: ArtifactEvent) -> Verdict:
        """Judge the news that an artifact was published, and act on it."""

    def accept_hint(self, event: Hint) -> Verdict:
        """Act on a delivery that says no more than that something may have changed."""

    def heard(self, verdict: str, reason: str, detail: str) -> None:
        """A delivery that never became a push was answered: ignored, duplicate or rejected, and why.

        `detail` is made of the forge and the delivery's id, where they are known.
        """

    async def wait(self, sync: str, deadline: float) -> Mapping[str, object] | None:
        """How a sync ended, or None when `deadline` seconds passed first or the sync is not known.

        `result` is one of `SUCCESS` if what was pushed runs; all else is for the reader of the answer.
        """
