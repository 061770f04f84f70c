"""The agent's life: it begins, waits for its end, and ends in order.

There are two ends: *shutdown* (TERM) stops the apps in order and then the agent; when the agent merely
dies, no child is touched, and the next agent goes on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from dataclasses import dataclass
from typing import Any

from agent.config import Settings
from agent.deploy import needs
from agent.deploy.beginning import apps_found
from agent.deploy.disk_watch import DiskWatch
from agent.deploy.journal import Journal
from agent.deploy.layout import DataDirectory
from agent.deploy.left_behind import LeftBehind
from agent.deploy.look import Look
from agent.deploy.makeshift import Makeshift
from agent.deploy.operator import PAUSE, Operator
from agent.deploy.processes import Processes
from agent.deploy.reconciler import Lanes, Reconciler
from agent.deploy.retries import Retries
from agent.deploy.settlement import last_word
from agent.deploy.unfinished import Unfinished
from agent.domain.events import Bus, PauseChanged
from agent.domain.model import SyncResult, Trigger, TriggerKind
from agent.keeper.client import KeeperClient
from agent.kit.mask import secrets
from agent.kit.tasks import Owned
from agent.notify.post import Post
from agent.once import EXIT_FAILED, Once, carry_out
from agent.process.oci import groups
from agent.process.strays import end_strays
from agent.source.inbox import TriggerInbox
from agent.source.poller import Poller
from agent.source.rotation import watch
from agent.status.deaths import tell_deaths
from agent.status.lag import measure_lag
from agent.status.metrics import Metrics
from agent.web.server import Face

log = logging.getLogger(__name__)

UPGRADED = -1  # no exit code, for a job may have any
STOP_MARGIN = 30.0  # seconds for the agent's own end beside the apps'


@dataclass(slots=True)
class Agent:
    """Everything, put together. `begin`, `until` and `shut_down` are its three parts of life."""

    settings: Settings
    keeper: KeeperClient
    data: DataDirectory
    journal: Journal
    bus: Bus
    inbox: TriggerInbox
    look: Look
    retries: Retries
    lanes: Lanes
    reconciler: Reconciler
    poller: Poller
    processes: Processes
    face: Face
    operator: Operator
    metrics: Metrics
    unfinished: Unfinished
    post: Post
    left_behind: LeftBehind
    disk: DiskWatch
    makeshift: Makeshift
    tasks: Owned
    broken: asyncio.Event
    once: Once | None
    first: asyncio.Future[SyncResult] | None = None  # the last word on the first sync, for `once`

    async def begin(self) -> None:
        """Open the doors, recover what is on disk, without Git, and then look at the truth."""
        if not self.keeper.children:
            await end_strays(self.data.box, {os.getpid(), self.keeper.keeper_pid})
            await asyncio.to_thread(groups.sweep, self.data.box)
        await self.face.start(self.makeshift.bear)  # first: an agent which cannot begin has started nothing
        await self.journal.mark_interrupted()
        found = await apps_found(
            self.data,
            self.keeper,
            self.unfinished,
            self.journal.ledger.under_way(),
            self.processes.surroundings,
        )
        known = [name for name in found if self.once is None or self.once.app in ("", name)]
        for name in known:
            self.lanes.get(name)
        for run in self.unfinished.rest(known):
            self.unfinished.settlement(run).settle(run.app, SyncResult.INTERRUPTED)
            await self.journal.mark_interrupted(run.id)
        if (message := self.journal.fact(PAUSE)) is not None:
            self.bus.publish(PauseChanged(message, self.makeshift.paused_by))
        sync = self.inbox.offer(Trigger(TriggerKind.START)).sync
        if self.once is not None:
            self.first = last_word(self.bus, sync)
        self.tasks.start(self.reconciler.run(), name="reconciler")
        self.tasks.start(self.poller.run(), name="poller")
        self.tasks.start(self.post.run(), name="post")
        self.tasks.start(watch(self.look.replaced, self.inbox), name="rotation")
        self.tasks.start(self.disk.watch(), name="disk")
        self.tasks.start(measure_lag(self.metrics), name="lag")
        self.tasks.start(tell_deaths(self.bus, self.keeper.deaths), name="deaths")
        self.tasks.start(self.left_behind.watch(), name="left behind")
        await self.keeper.ready()
        gc.collect()
        gc.freeze()
        log.info("ready: following %s at %s", self.settings.ref, secrets.text(self.settings.repo))

    async def until(self, stopped: asyncio.Event) -> int:
        """Wait for the end: a signal, the keeper's loss, a broken task, or with `once` the first sync."""
        waits: dict[asyncio.Task[Any], int] = {
            self.tasks.start(stopped.wait(), name="signal"): EXIT_FAILED if self.first else 0,
            self.tasks.start(self.keeper.lost.wait(), name="keeper"): EXIT_FAILED,
            self.tasks.start(self.broken.wait(), name="broken"): EXIT_FAILED,
            self.tasks.start(self.operator.upgrading.wait(), name="upgrade"): UPGRADED,
            self.tasks.start(self.makeshift.over(), name="makeshift"): UPGRADED,
        }
        first = None
        if self.once is not None and self.first is not None:
            first = self.tasks.start(carry_out(self.once, self.lanes, self.first), name="once")
        done, _ = await asyncio.wait(
            {*waits, *([first] if first else [])}, return_when=asyncio.FIRST_COMPLETED
        )
        ended = done.pop()
        return first.result() if first is not None and ended is first else waits.get(ended, EXIT_FAILED)

    def look_now(self) -> None:
        """SIGHUP: an operator wants a look at the truth."""
        self.inbox.offer(Trigger(TriggerKind.OPERATOR, detail="SIGHUP"))

    async def shut_down(self, code: int) -> int:
        """End in order: say so, keep serving a while, take no more triggers, stop the apps, close.

        Returns the agent's own exit code: the keeper was told `code`, and ends with it.
        """
        if self.keeper.lost.is_set() or self.broken.is_set():
            return EXIT_FAILED  # the children are none of ours any more, or the next agent's
        log.info("shutting down")
        order = needs.in_order(self.lanes.live())
        deadline = self.settings.shutdown_delay + needs.longest(order) + STOP_MARGIN
        await self.keeper.stopping(deadline, code)
        self.face.shutting_down()
        if self.settings.shutdown_delay:
            await asyncio.sleep(self.settings.shutdown_delay)
        self.retries.close()
        await self.post.flushed()
        await self.tasks.aclose()
        await needs.end(order)
        self.reconciler.interrupt()
        log.info("stopped")
        return 0
