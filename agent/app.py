"""The composition root: builds everything, owns the root TaskGroup, ends in order.

The agent is started by the keeper (`agent.keeper`), which owns the children and the sockets. There are
two ends: *shutdown* (TERM) stops the apps in order and then the agent; when the agent merely dies, no
child is touched, and the next agent goes on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from agent.artifact.artifacts import Artifacts
from agent.artifact.settings import artifacts_of
from agent.artifact.store import Store
from agent.config import ConfigError, Settings, learn_secrets, load
from agent.deploy import needs
from agent.deploy.beginning import apps_found
from agent.deploy.execs import ExecDesk
from agent.deploy.freezer import Freezer
from agent.deploy.journal import Journal
from agent.deploy.journal_news import open_journal
from agent.deploy.lane import Lane
from agent.deploy.layout import FORMAT, DataDirectory
from agent.deploy.left_behind import LeftBehind
from agent.deploy.look import Look
from agent.deploy.makeshift import Makeshift
from agent.deploy.operator import PAUSE, Operator
from agent.deploy.own_page import render_own_page
from agent.deploy.pinning import pinned
from agent.deploy.processes import Processes
from agent.deploy.provenance import Provenance
from agent.deploy.reconciler import Lanes, Reconciler
from agent.deploy.retries import Retries
from agent.deploy.said import Said
from agent.deploy.services import Services
from agent.deploy.settlement import last_word
from agent.deploy.successor import hand_on, try_successor
from agent.deploy.surroundings import Surroundings
from agent.deploy.table import ProcessTable
from agent.deploy.unfinished import Unfinished
from agent.deploy.upkeep import Bounds, Upkeep
from agent.deploy.wholeness import Wholeness
from agent.domain.errors import Failure
from agent.domain.events import Bus, PauseChanged
from agent.domain.model import SyncResult, Trigger, TriggerKind
from agent.domain.spec import AppSpec, SocketMode
from agent.git_artifacts import GitPacker
from agent.keeper.client import KeeperClient
from agent.keeper.protocol import KEEPER_FD_VARIABLE, VERSION
from agent.kit.loop import Loop
from agent.kit.mask import secrets
from agent.kit.tasks import Owned
from agent.notify.post import Post
from agent.once import EXIT_FAILED, Once, carry_out, read
from agent.process.adoption import Adoption
from agent.process.oci import groups
from agent.process.strays import end_strays
from agent.receiving import receiver
from agent.source.git.remote import remote_of
from agent.source.inbox import TriggerInbox
from agent.source.poller import Poller
from agent.source.pushes import PushSink
from agent.source.reachability import Reachability
from agent.source.rotation import watch
from agent.source.secrets import secret_reader
from agent.source.trust.policy import trust_of
from agent.status.board import AgentInfo, Board
from agent.status.lag import measure_lag
from agent.status.limited import LimitedCollector
from agent.status.log import setup
from agent.status.metrics import Metrics
from agent.status.narrator import narrate
from agent.traffic.gate import SlotGate
from agent.traffic.own import OwnGate
from agent.traffic.relayed import RelayGate
from agent.traffic.state import Gate
from agent.traffic.unclaimed import give_up_unclaimed
from agent.web.maintenance import public_progress
from agent.web.server import Face

log = logging.getLogger(__name__)

GATES: Mapping[SocketMode, type[SlotGate | OwnGate]] = {
    SocketMode.ADOPT: SlotGate,
    SocketMode.FD: SlotGate,
    SocketMode.RELAY: RelayGate,
    SocketMode.OWN: OwnGate,
}
EXIT_SETTINGS = 2
UPGRADED = -1  # no exit code, for a job may have any
EXIT_UPGRADED = 3  # any code but 0 and 2: the keeper starts the next agent at once
STOP_MARGIN = 30.0  # seconds for the agent's own end beside the apps'


def main(arguments: Sequence[str]) -> int:
    """Run the agent under its keeper; `arguments` are the verb (run or once) and its flags."""
    verb, flags = arguments[0], arguments[1:]
    if verb == "--introduce":
        print(json.dumps({"version": version("emptybox"), "protocol": VERSION, "format": FORMAT}))
        return 0
    try:
        once, flags = read(flags) if verb == "once" else (None, flags)
        settings = load(flags, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            print(f"emptybox: {problem}", file=sys.stderr)
        return EXIT_SETTINGS
    setup(settings.log_format, settings.log_level)
    learn_secrets(settings)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a gate may hold thousands of clients
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(live(settings, int(os.environ[KEEPER_FD_VARIABLE]), once))
    except Failure as failure:
        log.error("%s", failure)
        return EXIT_SETTINGS


async def live(settings: Settings, keeper_fd: int, once: Once | None) -> int:
    """The agent's whole life. Raises Failure when it cannot begin."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        agent = await build(settings, keeper_fd, stack, once)
        await agent.begin()
        loop.add_signal_handler(signal.SIGHUP, agent.look_now)
        code = await agent.until(stopped)
        if code != UPGRADED:
            return await agent.shut_down(code)
        await agent.tasks.aclose()
        await hand_on(agent.lanes.live().values())
        return EXIT_UPGRADED


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
    makeshift: Makeshift
    tasks: Owned
    broken: asyncio.Event
    once: Once | None
    first: asyncio.Future[SyncResult] | None = None  # the last word on the first sync, for `once`

    async def begin(self) -> None:
        """Open the doors, recover what is on disk, without Git, and then look at the truth."""
        if not self.keeper.children:
            await end_strays(self.data.box, {os.getpid(), self.keeper.keeper_pid})
            await asyncio.to_thread(groups.sweep, self.data.apps)
        await self.face.start(self.makeshift.bear)  # first: an agent which cannot begin has started nothing
        await self.journal.mark_interrupted()
        found = await apps_found(self.data, self.keeper, self.unfinished, self.processes.surroundings)
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
        self.tasks.start(measure_lag(self.metrics), name="lag")
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


async def build(settings: Settings, keeper_fd: int, stack: AsyncExitStack, once: Once | None) -> Agent:
    """Put everything together; `stack` closes it again, last built first. Raises Failure."""
    keeper = await KeeperClient.connect(keeper_fd)
    stack.push_async_callback(keeper.aclose)
    data = DataDirectory(settings.data)
    data.open()
    stack.callback(data.close)
    bus = Bus()
    info = AgentInfo(
        version=version("emptybox"), host=settings.name, labels=settings.labels, started=time.time(),
        pid=os.getpid(), repo=secrets.text(settings.repo), ref=settings.ref, path=settings.path,
        data_format=FORMAT,
    )  # fmt: skip
    board = Board(bus, info)
    metrics = Metrics(bus, board)
    stack.callback(narrate(bus))
    journal = await stack.enter_async_context(await open_journal(data, bus))
    post = Post(settings, bus, journal.outbox)
    stack.callback(post.close)
    store = Store(data.store)
    artifacts = await stack.enter_async_context(artifacts_of(settings, store, GitPacker(settings)))
    remote = remote_of(settings)
    stack.push_async_callback(remote.aclose)
    adoption = Adoption(keeper)
    provenance = Provenance(remote, settings.ref, trust_of(settings), journal, lambda: lanes.newest_commit())
    look = Look(remote, data.state, settings, adoption, provenance, secret_reader(settings, data.salt()))
    inbox = TriggerInbox(bus)
    unfinished = Unfinished(await journal.unfinished_runs(), lambda event: reconciler.ended(event))
    wholeness = Wholeness(artifacts, bus)
    processes = Processes(keeper, bus, Surroundings(data, settings, wholeness))
    metrics.registry.register(LimitedCollector(processes.surroundings.cgroups.used))
    broken = asyncio.Event()
    lane_tasks = await stack.enter_async_context(Owned("lanes", lambda error: _broke(broken, error)))
    tasks = await stack.enter_async_context(Owned("agent", lambda error: _broke(broken, error)))

    def make_gate(spec: AppSpec, voice: Bus) -> Gate:
        return GATES[spec.socket](
            spec.name, spec.listen, keeper, voice, maintenance=spec.maintenance,
            progress=lambda: public_progress(board.apps.get(spec.name), time.time()), render=render_own_page,
        )  # fmt: skip

    freezer = Freezer(inbox, bus)
    stack.callback(freezer.close)
    retries = Retries(inbox)
    stack.callback(retries.close)

    bounds = Bounds(settings.keep_age, settings.store_size)
    upkeep = Upkeep(store, lambda: lanes.users(), bounds, wholeness.repaired)
    services = Services(
        data=data, journal=journal, bus=bus, store=store, artifacts=artifacts, processes=processes,
        make_gate=make_gate, earlier=look.earlier, retry_later=retries.later,
        paused=lambda: journal.fact(PAUSE), frozen=freezer.now, collect=upkeep.collect, unfinished=unfinished,
        adoption=adoption, ready=needs.Needs(lambda: lanes.live()).ready, stop_room=settings.stop_room,
        once=once is not None, unclaimed=partial(give_up_unclaimed, keeper),
    )  # fmt: skip

    def make_lane(name: str) -> Lane:
        lane = Lane(name, services)
        lane_tasks.start(lane.run(), name=f"lane {name}")
        return lane

    lanes = Lanes(make_lane)
    reachability = Reachability(bus)
    only = once.app if once is not None else ""
    reconciler = Reconciler(inbox, look, reachability, lanes, journal, bus, retries.later, freezer, only)
    table = ProcessTable(keeper, lanes, (keeper.keeper_pid, os.getpid()), version("emptybox"))
    said = Said(data.apps, lanes, processes, kept=settings.app_log_size > 0)
    operator = Operator(
        inbox, reconciler, lanes, look, journal, said, artifacts, upkeep, bus, partial(pinned, artifacts),
        lambda: try_successor(VERSION), table, lambda: _examine(settings, lanes, artifacts),
        ExecDesk(lanes, processes, journal.execs, bus, settings.execs),
    )  # fmt: skip
    sink = PushSink(inbox, settings.repo, settings.ref, bus, lanes.artifacts)
    announced = sink if settings.webhook_secret_file else None
    poller = Poller(look.head, inbox, bus, settings.poll, look.known, announced, reachability=reachability)
    face = Face(settings, board, metrics, operator, receiver(settings, sink).handle)
    stack.push_async_callback(face.aclose)
    stack.push_async_callback(operator.execs.aclose)
    return Agent(
        settings, keeper, data, journal, bus, inbox, look, retries, lanes, reconciler, poller,
        processes, face, operator, metrics, unfinished, post,
        LeftBehind(keeper, keeper.keeper_pid, data.box, lanes, bus),
        Makeshift(data, journal, artifacts.unswept, once is None and bool(data.known_apps())),
        tasks, broken, once,
    )  # fmt: skip


async def _examine(settings: Settings, lanes: Lanes, artifacts: Artifacts) -> Mapping[str, Any]:
    """The doctor's findings. Imported for them only."""
    from agent.doctor.examine import examine

    specs = {name: lane.app.wanted for name, lane in lanes.live().items()}
    wanted = {name: spec.artifact for name, spec in specs.items() if spec and spec.artifact}
    return await examine(settings, wanted, artifacts.reach)


def _broke(broken: asyncio.Event, error: BaseException) -> None:
    """A task that must not end has failed: this agent ends, the keeper starts the next one."""
    log.critical("the agent cannot go on", exc_info=error)
    broken.set()
