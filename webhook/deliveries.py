"""Deliveries answered before: their verdicts by forge and id, the newest few thousand of them.

Ids are not part of what forges sign, so this saves work and answers a forge's own redelivery; it is no
proof against replay. What makes a replay harmless is that a push is only a hint: it costs one look.
"""

from __future__ import annotations

from collections import OrderedDict

from webhook.sink import Verdict


class Deliveries:
    """A bounded memory; the oldest is forgotten first. Deliveries without an id are never remembered."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._verdicts: OrderedDict[tuple[str, str], Verdict] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verdicts)

    def earlier(self, forge: str, delivery: str) -> Verdict | None:
        """The verdict this delivery got before."""
        return self._verdicts.get((forge, delivery)) if delivery else None

    def remember(self, forge: str, delivery: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        if not delivery:
            return
        self._verdicts[forge, delivery] = verdict
        while len(self._verdicts) > self._limit:
            self._verdicts.popitem(last=False)
