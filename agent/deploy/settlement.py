"""The end of a sync: known once each of its apps has settled, corrected when probation ends otherwise.

A sync is told as ended when the last of its apps settles. A release on probation counts as *probation*,
never as success; when it proves itself or is rolled back, the sync is told again with the final word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from agent.domain.errors import FailureInfo
from agent.domain.events import Bus, Event, SyncFinished
from agent.domain.model import SyncResult

# The worst word of any app is the word for the sync.
_SEVERITY = (
    SyncResult.RUNNING,
    SyncResult.FAILED,
    SyncResult.ROLLED_BACK,
    SyncResult.INTERRUPTED,
    SyncResult.SUPERSEDED,
    SyncResult.PROBATION,
    SyncResult.SUCCEEDED,
    SyncResult.UNCHANGED,
)


class Settlement:
    """Collects the outcome of each app of one sync.

    Args:
        sync: the sync's id.
        commit: the commit it resolved to.
        apps: names that have to settle.
        tell: called with the SyncFinished when all have settled, and on each later correction.
    """

    def __init__(
        self, sync: str, commit: str, apps: Iterable[str], tell: Callable[[SyncFinished], None]
    ) -> None:
        self.sync = sync
        self.commit = commit
        self._began = time.monotonic()
        self._outcomes: dict[str, tuple[SyncResult, FailureInfo | None]] = dict.fromkeys(
            apps, (SyncResult.RUNNING, None)
        )
        self._tell = tell
        self._told: SyncResult | None = None

    def settle(self, app: str, result: SyncResult, failure: FailureInfo | None = None) -> None:
        """One app's outcome; a later call for the same app corrects it."""
        self._outcomes[app] = (result, failure)
        self.tell_if_ended()

    def tell_if_ended(self) -> None:
        """Tell the end if every app has settled and the word differs from the one told before."""
        result, failure = self.outcome()
        if result in (SyncResult.RUNNING, self._told):
            return
        self._told = result
        seconds = time.monotonic() - self._began
        self._tell(SyncFinished(self.sync, result, self.commit, failure, seconds))

    def outcome(self) -> tuple[SyncResult, FailureInfo | None]:
        """The word for the sync so far, and the failure behind it."""
        worst: tuple[SyncResult, FailureInfo | None] = (SyncResult.UNCHANGED, None)
        for result, failure in self._outcomes.values():
            if _SEVERITY.index(result) < _SEVERITY.index(worst[0]):
                worst = (result, failure)
        return worst


def last_word(bus: Bus, sync: str) -> asyncio.Future[SyncResult]:
    """How a sync ends, probation included: a release that is still watched is no success."""
    end: asyncio.Future[SyncResult] = asyncio.get_running_loop().create_future()

    def hear(event: Event) -> None:
        if not isinstance(event, SyncFinished) or event.sync != sync or end.done():
            return
        if event.result is not SyncResult.PROBATION:
            end.set_result(event.result)

    bus.subscribe(hear)
    return end
