"""The composition root: builds everything, and is done when its life (`agent.life`) has ended.

The agent is started by the keeper (`agent.keeper`), which owns the children and the sockets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from typing import Any

from agent.artifact.artifacts import Artifacts
from agent.artifact.settings import artifacts_of
from agent.artifact.store import Store
from agent.config import ConfigError, Settings, learn_secrets, load
from agent.deploy import needs
from agent.deploy.disk_watch import DiskWatch
from agent.deploy.execs import ExecDesk
from agent.deploy.freezer import Freezer
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
from agent.deploy.successor import hand_on, try_successor
from agent.deploy.surroundings import Surroundings
from agent.deploy.table import ProcessTable
from agent.deploy.unfinished import Unfinished
from agent.deploy.upkeep import Bounds, Upkeep
from agent.deploy.wholeness import Wholeness
from agent.domain.errors import Failure, OperatorNeeded
from agent.domain.events import Bus
from agent.domain.spec import AppSpec, SocketMode
from agent.git_artifacts import GitPacker
from agent.keeper.client import KeeperClient
from agent.keeper.protocol import KEEPER_FD_VARIABLE, MAKES_WAY, VERSION
from agent.kit.loop import Loop
from agent.kit.mask import secrets
from agent.kit.outflow import Outflow
from agent.kit.standstill import Standstill
from agent.kit.tasks import Owned
from agent.life import UPGRADED, Agent
from agent.notify.post import Post
from agent.once import Once, read
from agent.process.adoption import Adoption
from agent.receiving import receiver
from agent.source.git.remote import remote_of
from agent.source.inbox import TriggerInbox
from agent.source.poller import Poller
from agent.source.pushes import PushSink
from agent.source.reachability import Reachability
from agent.source.secrets import secret_reader
from agent.source.trust.policy import trust_of
from agent.status.board import AgentInfo, Board
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
ENDING = 5.0  # seconds that another agent on the same data is given for its end


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
    setup(settings.log_format, settings.log_level, Outflow(sys.stderr.fileno()))
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
        return MAKES_WAY


async def build(settings: Settings, keeper_fd: int, stack: AsyncExitStack, once: Once | None) -> Agent:
    """Put everything together; `stack` closes it again, last built first. Raises Failure."""
    keeper = await KeeperClient.connect(keeper_fd)
    stack.push_async_callback(keeper.aclose)
    data = DataDirectory(settings.data)
    await _open(data)
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
    salt = await asyncio.to_thread(data.salt)
    look = Look(remote, data.state, settings, adoption, provenance, secret_reader(settings, salt))
    await look.begin()
    inbox = TriggerInbox(bus)
    unfinished = Unfinished(await journal.unfinished_runs(), lambda event: reconciler.ended(event))
    wholeness = Wholeness(artifacts, bus)
    processes = Processes(keeper, bus, Surroundings(data, settings, wholeness))
    metrics.registry.register(LimitedCollector(processes.surroundings.cgroups.used))
    standstill = Standstill()
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
        once=once is not None, unclaimed=partial(give_up_unclaimed, keeper), standstill=standstill,
    )  # fmt: skip

    def make_lane(name: str) -> Lane:
        lane = Lane(name, services)
        lane_tasks.start(lane.run(), name=f"lane {name}")
        return lane

    lanes = Lanes(make_lane)
    reachability = Reachability(bus)
    only = once.app if once is not None else ""
    reconciler = Reconciler(
        inbox, look, reachability, lanes, journal, bus, retries.later, freezer, only, standstill.timeout
    )
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
        DiskWatch(data.root, data.ask, bus, standstill),
        Makeshift(data, journal, artifacts.unswept, once is None and bool(data.known_apps())),
        tasks, broken, once,
    )  # fmt: skip


async def _open(data: DataDirectory) -> None:
    """Open the data directory. An agent whose keeper was killed a moment ago may still be ending.

    Raises OperatorNeeded.
    """
    waited = 0.0
    while True:
        try:
            return await asyncio.to_thread(data.open)
        except OperatorNeeded as error:
            if error.info.reason != "DataInUse" or waited >= ENDING:
                raise
            if not waited:
                log.warning("%s; it may be about to end", error.info.message)
        await asyncio.sleep(0.05)
        waited += 0.05


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
