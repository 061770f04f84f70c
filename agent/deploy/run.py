"""One run: a plan carried out by the task graph, journalled, told on the bus, cancellable until migrate.

A run's life, and the results it can have:

    running --switched--> probation --proven--> succeeded
       |                      +--verdict bad--> rolled-back
       +--before the switch--> failed | cancelled | later | interrupted
       +--in a canary--> rolled-back | cancelled | interrupted
       +--after the old child was stopped, old one back--> rolled-back
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar

from agent.artifact.artifacts import Artifacts
from agent.artifact.delivery import Delivery
from agent.deploy.canary import Canary
from agent.deploy.child import Child
from agent.deploy.deployments import Deployment, Deployments, pair_of
from agent.deploy.failures import as_info
from agent.deploy.gates import Gates
from agent.deploy.graph import Graph, Node
from agent.deploy.jobs.jobs import Jobs
from agent.deploy.journal import Journal
from agent.deploy.layout import AppDirectory
from agent.deploy.processes import Processes
from agent.deploy.serving import Serving
from agent.domain.errors import Failure, FailureInfo, Permanent
from agent.domain.events import Bus, StepFinished, StepProgress, StepStarted
from agent.domain.model import Pair, Plan, PlannedStep, StepResult, new_id
from agent.domain.spec import AppSpec
from agent.kit.standstill import Timeout
from agent.status.log import bind
from agent.traffic.state import Gate

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class RunContext:
    """What the steps of one run share. Filled as the run goes on."""

    sync: str
    spec: AppSpec
    commit: str
    signer: str
    artifact_signer: str
    plan: Plan
    release: str  # store id of the wanted release, "" without an artifact
    directory: AppDirectory
    deployments: Deployments
    artifacts: Artifacts
    processes: Processes
    serving: Serving
    gate: Gate | None
    gates: Gates
    canary: Canary
    jobs: Jobs
    journal: Journal
    bus: Bus
    first: bool
    ready: Callable[[Sequence[str]], Awaitable[str]]  # waits for apps: "" or why one does not serve
    condition: Callable[[str, bool, str, str], None]  # tells a condition of the app
    timeout: Timeout  # what steps are given their time by
    id: str = field(default_factory=lambda: new_id("run"))
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    delivery: Delivery | None = None
    deployment: Deployment | None = None
    instance: Path | None = None
    side: int = 0
    child: Child | None = None  # the new one
    old: Child | None = None  # what served when the run began
    stopped_old: Deployment | None = None  # the old one was stopped by this run
    back_healthy: bool = False  # ... and the old pair, started again, passed its probe
    committed: bool = False  # from migrate on the run ends before a newer commit is looked at
    shared: bool = False  # the new child has had a share of the clients
    switched: bool = False
    replaced: Deployment | None = None  # what places outside showed when `put` began
    put: bool = False
    taken_back: bool = False  # what this run did to the data was taken back, as far as it could be
    taken_from: Deployment | None = None  # whose migrations `down` took back
    taken: tuple[str, ...] = ()  # ... their names
    stuck: str = ""  # why the old pair could not serve again: the data are not its own any more
    marked: Awaitable[None] | None = None  # the journal has everything before the switch on disk
    _writing: asyncio.Future[None] | None = None

    @property
    def app(self) -> str:
        """The app's name."""
        return self.spec.name

    @property
    def pair(self) -> Pair:
        """The pair this run is about."""
        return pair_of(self.spec, self.release, self.commit, self.signer, self.artifact_signer)

    def describe(self) -> Deployment:
        """The deployment of this run; it is written while the run goes on, see `written`."""
        deployment = self.deployments.describe(self.spec, self.pair)
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self.deployments.write, deployment)
        return deployment

    async def written(self) -> None:
        """The deployment is on disk: nothing may point at it before. Raises OSError."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def tidy(self) -> None:
        """At the end, however it came: nothing is being written any more, and no instance is left unused."""
        for last in (self._writing, self.marked):
            try:
                if last is not None:
                    await last
            except (Failure, OSError) as error:  # the step that needed it has told
                log.debug("%s: %s", self.id, error)
        if self.instance is not None and self.child is None:
            await self.processes.surroundings.remove_instance(self.instance)

    def waits(self, step: str, text: str) -> None:
        """Tell what a step waits for; "" for nothing."""
        self.condition("Progressing", True, "Running", f"{step}: {text}" if text else self.plan.reason)

    def progress(self, step: str, done: int, total: int, unit: str = "bytes") -> None:
        """Tell how far a step is."""
        self.bus.publish(StepProgress(self.id, self.app, step, done, total, unit))


class Crash(Enum):
    """What the agent's death in a step, or after it, means for the step as long as the run has no end.

    REDO: it changed nothing that counts, or what it did is found done; the next run carries it out anew.
    UNDO: the next agent takes back what it did, before anything else is begun for the app.
    RESUME: the next agent finishes it, if it has had its effect; otherwise it counts for nothing.
    """

    REDO = "redo"
    UNDO = "undo"
    RESUME = "resume"


class Step(ABC):
    """One kind of step. One file each; they never import one another.

    `crash` says what the agent's death means for it: every kind says so itself, see `cut_off`. `retries`
    counts further attempts after a transient failure; a `shielded` step that has begun is not cancelled.
    `late` is the failure of a step that is not done within its deadline. A step that can be taken back has
    `undo`, which has to bear a half-done `run`.
    """

    kind: ClassVar[str]
    crash: ClassVar[Crash]
    retries: ClassVar[int] = 0
    shielded: ClassVar[bool] = False
    late: ClassVar[type[Failure]] = Permanent

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls) and "crash" not in vars(cls):
            raise TypeError(f"{cls.__name__} does not say what a crash in it means")

    @abstractmethod
    def deadline(self, context: RunContext) -> float:
        """Seconds the step may take, its retries included."""

    def undo_deadline(self, context: RunContext) -> float:  # noqa: ARG002
        """Seconds the undo may take."""
        return 60.0

    @abstractmethod
    async def run(self, context: RunContext, step: PlannedStep) -> None:
        """Do it. Raises Failure."""

    undo: Callable[[RunContext], Awaitable[None]] | None = None


class Run:
    """Carries out one plan."""

    def __init__(self, context: RunContext, catalog: Mapping[str, Step]) -> None:
        self.context = context
        nodes = [self._node(step, catalog[step.kind]) for step in context.plan.steps]
        self._graph = Graph(nodes, context.timeout)
        self.failure: FailureInfo | None = None
        self.failed_step = ""

    def _node(self, step: PlannedStep, body: Step) -> Node:
        context = self.context
        undo = body.undo
        return Node(
            name=step.name,
            needs=step.needs,
            run=lambda: body.run(context, step),
            undo=(lambda: undo(context)) if undo is not None else None,
            deadline=body.deadline(context),
            undo_deadline=body.undo_deadline(context),
            retries=body.retries,
            shielded=body.shielded,
            late=body.late,
        )

    async def execute(self) -> Exception | None:
        """Carry out the graph; returns what the first failing step raised. Raises only CancelledError."""
        try:
            with bind(sync=self.context.sync, run=self.context.id):
                await self._execute()
        except Exception as error:
            return error
        return None

    async def _execute(self) -> None:
        async with self.context.stack:
            self.context.stack.push_async_callback(self.context.tidy)
            await self._graph.run(self)

    # -- graph.Observer ---------------------------------------------------------------------------

    def started(self, name: str, attempt: int) -> None:
        """Journal and tell that a step began."""
        kind = self._kind(name)
        self.context.journal.step_started(self.context.id, name, kind, attempt)
        self.context.bus.publish(StepStarted(self.context.id, self.context.app, name, kind, attempt))

    def retrying(self, name: str, attempt: int, error: Exception, delay: float) -> None:
        """Say in the log that a step is tried again."""
        log.warning(
            "%s: step %s, attempt %d: %s; again in %.1f s", self.context.app, name, attempt, error, delay
        )

    def finished(self, name: str, result: StepResult, seconds: float, error: BaseException | None) -> None:
        """Journal and tell how a step ended."""
        info = as_info(error, name) if error is not None and result is StepResult.FAILED else None
        if info is not None and self.failure is None:
            self.failure, self.failed_step = info, name
        context = self.context
        context.journal.step_finished(context.id, name, result, seconds, info)
        context.bus.publish(
            StepFinished(context.id, context.app, name, self._kind(name), result, seconds, info)
        )

    def undone(self, name: str, error: Exception | None) -> None:
        """Journal and tell that a step was taken back."""
        info = as_info(error, name) if error is not None else None
        context = self.context
        context.journal.step_finished(context.id, name, StepResult.UNDONE, 0.0, info)
        context.bus.publish(
            StepFinished(context.id, context.app, name, self._kind(name), StepResult.UNDONE, 0.0, info)
        )

    def _kind(self, name: str) -> str:
        return next((s.kind for s in self.context.plan.steps if s.name == name), name)
