"""What is known of a canary while it lasts, and who may end it before its time.

    waiting --begin--> under way --time over, promote, the old version ends or sickens--> passed
                                  +--the new version ends or sickens, abort------------> failed

The first word stands. The step `canary` waits for it; operators and the lane leave it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.domain.errors import FailureInfo, FailureKind


class Canary:
    """The canary of one app: none most of the time. `changed` is called when one begins and ends."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.run = self.sync = ""  # whose canary is under way
        self.sick = asyncio.Event()  # what serves beside it has turned unhealthy
        self._word: asyncio.Future[FailureInfo | None] | None = None

    @property
    def running(self) -> bool:
        """Whether one is under way and nothing is decided yet."""
        return self._word is not None and not self._word.done()

    def begin(self, run: str, sync: str) -> None:
        """One begins."""
        self.run, self.sync = run, sync
        self.sick = asyncio.Event()
        self._word = asyncio.get_running_loop().create_future()
        self.changed()

    async def decided(self) -> FailureInfo | None:
        """Wait for the word: why it failed, or None when it passed."""
        assert self._word is not None
        return await asyncio.shield(self._word)

    def end(self) -> None:
        """It is over; a word that comes later counts for nothing."""
        self._word = None
        self.changed()

    def passed(self) -> bool:
        """Let the new version have all clients. False when nothing is to be decided any more."""
        return self._decide(None)

    def failed(self, failure: FailureInfo) -> bool:
        """Take the clients back from the new version. False when nothing is to be decided any more."""
        return self._decide(failure)

    def abort(self, by: str) -> bool:
        """An operator does not want it. False when nothing is to be decided any more."""
        return self.failed(
            FailureInfo(
                FailureKind.PERMANENT,
                "OperatorAbort",
                f"an operator ({by}) ended its canary",
                remedy="push a changed specification, or retry it",
            )
        )

    def _decide(self, word: FailureInfo | None) -> bool:
        if self._word is None or self._word.done():
            return False
        self._word.set_result(word)
        return True
