"""The story of a deploy, told in one function: resolve, read, plan and run, record.

`Reconciler.reconcile_once` is one sync: one look at the truth. It hands each app's wish to the app's
lane and is done; the lanes plan and run side by side, and the sync ends when all have settled. Looks
are at least `SPACING` seconds apart unless an operator asks, so that a flood of pushes makes few syncs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from agent.deploy.failures import as_info
from agent.deploy.freezer import Freezer
from agent.deploy.journal import INTERRUPTED, Journal
from agent.deploy.lane import Lane
from agent.deploy.look import Look
from agent.deploy.retries import pause
from agent.deploy.settlement import Settlement
from agent.deploy.upkeep import User
from agent.deploy.wish import Wish
from agent.domain.errors import Failure, FailureKind, OperatorNeeded, Transient
from agent.domain.events import Bus, ConditionChanged, SyncFinished, SyncResolved, SyncStarted
from agent.domain.model import Condition, ConditionStatus, DesiredState, SyncResult, TriggerKind
from agent.kit.standstill import Timeout
from agent.source.inbox import PendingSync, TriggerInbox
from agent.source.reachability import Reachability
from agent.status.log import bind

log = logging.getLogger(__name__)

SPACING = 1.0  # seconds between the beginnings of two looks
# What the news of an artifact may have mended.
NOT_THERE = ("ArtifactNotFound", "ChecksumMissing", "TagMoved")
LOOK_DEADLINE = 120.0  # seconds for one look


class Lanes:
    """All lanes by name; one is made when its app is first wanted, and runs until the end."""

    def __init__(self, make: Callable[[str], Lane]) -> None:
        self._make = make
        self.by_name: dict[str, Lane] = {}

    def get(self, app: str) -> Lane:
        """The app's lane."""
        if app not in self.by_name:
            self.by_name[app] = self._make(app)
        return self.by_name[app]

    def live(self) -> dict[str, Lane]:
        """Lanes of apps that are here: running, wanted or once deployed and not removed."""
        return {name: lane for name, lane in self.by_name.items() if not lane.removed}

    def users(self) -> dict[str, User]:
        """Who needs what of the store. An app that was removed needs nothing."""
        found = {}
        for name, lane in self.by_name.items():
            app = lane.app
            children = [child.deployment for child in app.serving.everyone()]
            serving = [one for one in (app.current, *children) if one is not None]
            marks = {
                "current": [one.pair.spec for one in serving],
                "good": [one.pair.spec for one in (app.good,) if one is not None],
                "wanted": [app.wanted.digest] if app.wanted is not None else [],
            }
            found[name] = User(app.deployments, marks, busy=lane.updating)
        return found

    def artifacts(self) -> list[str]:
        """URLs of the artifacts, and of their checksums, that are wanted or set aside now."""
        wanted = [lane.app.wanted.artifact for lane in self.live().values() if lane.app.wanted is not None]
        return [url for one in wanted if one is not None for url in (one.url, one.checksum.url) if url]

    def newest_commit(self) -> str:
        """The commit of the pair that began to serve last; "" when nothing serves."""
        pairs = [lane.app.current.pair for lane in self.by_name.values() if lane.app.current is not None]
        return max(pairs, key=lambda pair: pair.since).commit if pairs else ""


class Reconciler:
    """Takes triggers one after the other and makes each a sync.

    Args:
        inbox: where triggers wait.
        look: reads the state repository.
        reachability: the agent's condition about the repository.
        lanes: where wishes go.
        journal: where syncs are recorded.
        bus: where facts are told.
        retry_later: asks for another look: (app, seconds, reason), app "" for the state itself.
        freezer: keeps the freeze windows of the newest state.
        only: the one app that is looked after; "" means all.
        timeout: what looks are given their time by.
    """

    def __init__(
        self,
        inbox: TriggerInbox,
        look: Look,
        reachability: Reachability,
        lanes: Lanes,
        journal: Journal,
        bus: Bus,
        retry_later: Callable[[str, float, str], None],
        freezer: Freezer,
        only: str = "",
        timeout: Timeout = asyncio.timeout,
    ) -> None:
        self._inbox = inbox
        self._look = look
        self._reachability = reachability
        self._lanes = lanes
        self._journal = journal
        self._bus = bus
        self._retry_later = retry_later
        self._freezer = freezer
        self._only = only
        self._timeout = timeout
        self._failed_looks = 0  # in a row
        self._prune_all = False
        self._accept_history = False
        self.commit: str | None = None  # the commit of the newest look that could be read

    def allow_prune_all(self) -> None:
        """Let the next look remove every app."""
        self._prune_all = True

    def accept_history(self) -> None:
        """Let the next look find a commit that does not have the last deployed one behind it."""
        self._accept_history = True

    async def run(self) -> NoReturn:
        """Take and look, for ever."""
        began = -SPACING
        while True:
            pending = await self._inbox.take(not_before=began + SPACING)
            began = time.monotonic()
            with bind(sync=pending.sync):
                await self.reconcile_once(pending)

    async def reconcile_once(self, pending: PendingSync) -> None:
        """One sync: resolve, read, hand each app its wish, record."""
        self._open(pending)
        try:
            async with self._timeout(LOOK_DEADLINE):
                announced, accept = pending.announced, self._accept_history
                desired = await self._look.resolve(announced, accept_history=accept)
            self._resolved(pending, desired)
            self._refuse_silent_emptying(desired)
            desired = self._of_concern(desired)
        except TimeoutError:
            error = Transient("GitTimeout", f"no look at the state repository within {LOOK_DEADLINE:.0f} s")
            self._refused(pending, error)
            return
        except Failure as error:
            self._refused(pending, error)
            return
        except Exception as error:  # a state that nobody thought of must not end the agent
            info = as_info(error, "the state repository")
            self._refused(pending, OperatorNeeded(info.reason, info.message, remedy=info.remedy))
            return
        self._failed_looks = 0
        self._freezer.follow(desired.freezes)
        self.commit = desired.commit
        self._prune_all = self._accept_history = False
        if pending.by_artifact:
            self._journal.quarantine.release(NOT_THERE)
        wanted = [*desired.apps, *desired.refused]
        gone = {} if self._only else self._lanes.live()
        leaving = {n: lane for n, lane in gone.items() if n not in wanted}
        settlement = Settlement(pending.sync, desired.commit, [*wanted, *leaving], self.ended)
        for name, spec in desired.apps.items():
            wish = Wish(
                spec, desired.commit, settlement, operator=pending.by_operator, override=pending.override
            )
            wish.signer = desired.signer
            self._lanes.get(name).want(wish)
        for name, failure in desired.refused.items():
            self._lanes.get(name).refuse(settlement, failure)
        for lane in leaving.values():
            lane.remove(settlement)
        settlement.tell_if_ended()

    def _open(self, pending: PendingSync) -> None:
        kinds = tuple(dict.fromkeys(t.kind for t in pending.triggers))
        self._journal.open_sync(pending.sync, kinds=[str(k) for k in kinds], detail=_detail(pending))
        self._bus.publish(SyncStarted(pending.sync, kinds))

    def _resolved(self, pending: PendingSync, desired: DesiredState) -> None:
        self._reachability.reached()
        self._inbox.resolved(pending.sync, desired.commit)
        self._journal.resolve_sync(pending.sync, desired.commit)
        self._bus.publish(SyncResolved(pending.sync, desired.commit, desired.signer))
        self._tell_state("True", "Valid", "; ".join(desired.warnings))

    def _refuse_silent_emptying(self, desired: DesiredState) -> None:
        if desired.apps or desired.refused or self._prune_all or not self._lanes.live():
            return
        raise OperatorNeeded(
            "PruneRefused",
            f"the state names no app for this host, which would remove {', '.join(self._lanes.live())}",
            where=desired.commit[:12],
            remedy="if that is meant: emptybox sync --prune-all",
        )

    def _of_concern(self, desired: DesiredState) -> DesiredState:
        """The state as far as it is looked after."""
        if not self._only:
            return desired
        apps = {name: spec for name, spec in desired.apps.items() if name == self._only}
        refused = {name: failure for name, failure in desired.refused.items() if name == self._only}
        if not apps and not refused:
            there = ", ".join((*desired.apps, *desired.refused)) or "none"
            told = f"the state names no app {self._only} for this host; there are: {there}"
            raise OperatorNeeded("AppUnknown", told, where=desired.commit[:12])
        return replace(desired, apps=apps, refused=refused)

    def _refused(self, pending: PendingSync, error: Failure) -> None:
        info = error.info
        if self._look.reached:
            self._reachability.reached()
            self._journal.resolve_sync(pending.sync, self._look.seen or "")
            self._tell_state("False", info.reason, str(info))
        else:
            self._reachability.failed(info)
        if info.kind is not FailureKind.PERMANENT:  # polls may find nothing new in it, or be rare
            again = all(trigger.kind is TriggerKind.RETRY for trigger in pending.triggers)
            self._failed_looks = self._failed_looks + 1 if again else 1
            self._retry_later("", pause(self._failed_looks, error.retry_after), info.reason)
        self.ended(SyncFinished(pending.sync, SyncResult.FAILED, self._look.seen or "", info))

    def _tell_state(self, status: str, reason: str, message: str) -> None:
        condition = Condition("StateValid", ConditionStatus(status), reason, message, time.time())
        self._bus.publish(ConditionChanged("", condition))

    def interrupt(self) -> None:
        """The agent ends: no sync is left without an end, and nobody waiting for one."""
        for sync in self._inbox.open:
            self.ended(SyncFinished(sync, SyncResult.INTERRUPTED, "", INTERRUPTED))

    def ended(self, event: SyncFinished) -> None:
        """A sync ended, or its last word changed: record and tell."""
        self._journal.close_sync(event.sync, event.result, failure=event.failure)
        self._look.ended(event)
        self._bus.publish(event)
        self._inbox.finished(event)


def _detail(pending: PendingSync) -> str:
    return "; ".join(dict.fromkeys(t.detail for t in pending.triggers if t.detail))[:500]
