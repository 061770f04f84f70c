"""What every lane works with, and what it keeps about its own app."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.deploy.canary import Canary
from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.gates import Gates, MakeGate
from agent.deploy.jobs.jobs import Jobs
from agent.deploy.journal import Journal
from agent.deploy.layout import AppDirectory, DataDirectory
from agent.deploy.ledger import release_of
from agent.deploy.processes import Processes
from agent.deploy.serving import Serving
from agent.deploy.unfinished import Unfinished
from agent.domain.errors import FailureInfo
from agent.domain.events import (
    AppFailed,
    AppStateChanged,
    Bus,
    ConditionChanged,
    InstancesChanged,
    PairCurrent,
    PairGood,
)
from agent.domain.freeze import Frozen
from agent.domain.model import AppState, Condition, ConditionStatus, Instance
from agent.domain.spec import AppSpec
from agent.kit.standstill import Standstill
from agent.process.adoption import Adoption
from agent.traffic.state import Gate

AS_WANTED = "AsWanted"  # the reason of a condition that is not worth telling before it was otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Collaborators shared by all lanes.

    `make_gate` gives the gate for an app's ports; it does nothing yet.
    `earlier(commit, app, count)` reads earlier specifications from Git. `retry_later(app, seconds,
    reason)` asks for a new sync then. `paused()` is the operator's message or None,
    `frozen()` the freeze window that is now. `collect()` removes
    releases nobody names. `unfinished` is what the last agent left without an end. `adoption` says whether
    programs can be adopted here. `ready(apps)` waits until they serve: "", or why one does not.
    `stop_room` are the seconds the platform leaves an app for its stop. `unclaimed(app, gates)` closes ports
    of an app that the keeper holds for no open one of these gates. `once`: jobs run only when they are
    asked to.
    """

    data: DataDirectory
    journal: Journal
    bus: Bus
    store: Store
    artifacts: Artifacts
    processes: Processes
    make_gate: MakeGate
    earlier: Callable[[str, str, int], Awaitable[list[tuple[str, AppSpec]]]]
    retry_later: Callable[[str, float, str], None]
    paused: Callable[[], str | None]
    frozen: Callable[[], Frozen | None]
    collect: Callable[[], Coroutine[Any, Any, object]]
    unfinished: Unfinished
    adoption: Adoption
    ready: Callable[[Sequence[str]], Awaitable[str]]
    stop_room: float
    unclaimed: Callable[[str, Iterable[Gate]], Awaitable[None]]
    standstill: Standstill
    once: bool = False


class AppContext:
    """One app's directories, links, serving children and gate, and how facts about it are told."""

    def __init__(self, name: str, services: Services, watcher: object) -> None:
        self.name = name
        self.services = services
        self.directory = AppDirectory(services.data, name)
        self.deployments = Deployments(self.directory)
        self.serving = Serving(name, services.processes, services.bus, watcher)  # type: ignore[arg-type]
        self.gates = Gates(name, services.make_gate, services.bus)
        self.canary = Canary()
        self.jobs = Jobs(
            name, services.processes, self.deployments, services.journal.jobs, services.bus,
            by_itself=not services.once,
        )  # fmt: skip
        self.wanted: AppSpec | None = None
        self.unhealthy: FailureInfo | None = None
        self.placed = False  # without a program: all that its placing asked for was done
        self._state = AppState.EMPTY
        self._instances: tuple[int, tuple[Instance, ...]] = (0, ())
        self.prepared = ""  # digest of what is ready for the end of a freeze
        self.contracted = ""  # digest of the specification whose contract migrations were asked for
        self.memory_short = ""  # why the last swap had to be a restart
        self._conditions: dict[str, tuple[bool, str, str]] = {}

    @property
    def current(self) -> Deployment | None:
        """The deployment that serves or last served: what the link says."""
        return self.deployments.linked("current")

    @property
    def good(self) -> Deployment | None:
        """The deployment that last proved itself."""
        return self.deployments.linked("good")

    async def link_current(self, deployment: Deployment | None) -> None:
        """Point `current`, and tell. Raises OSError."""
        await asyncio.to_thread(self.deployments.link, "current", deployment)
        self.services.bus.publish(PairCurrent(self.name, deployment.pair if deployment else None))

    async def prove(self, deployment: Deployment) -> None:
        """Point `good`, and tell. Raises OSError."""
        await asyncio.to_thread(self.deployments.prove, deployment)
        self.services.bus.publish(PairGood(self.name, deployment.pair))

    def condition(self, kind: str, status: bool, reason: str, message: str = "") -> None:
        """Tell a condition of this app, when it is another than before."""
        if self._conditions.get(kind, (False, AS_WANTED, "")) == (status, reason, message):
            return
        self._conditions[kind] = (status, reason, message)
        value = ConditionStatus.TRUE if status else ConditionStatus.FALSE
        condition = Condition(kind, value, reason, message, time.time())
        self.services.bus.publish(ConditionChanged(self.name, condition))

    def recovered(self) -> None:
        """What serves now is another pair than the one that was unhealthy."""
        if self.unhealthy is not None:
            self.unhealthy = None
            self.condition("Healthy", True, "Probed")

    def quarantined(self, spec: AppSpec) -> FailureInfo | None:
        """Why a specification was set aside, or None."""
        entry = self.services.journal.quarantine.find(self.name, spec.digest)
        return entry.failure if entry is not None else None

    def fit(self, deployment: Deployment) -> bool:
        """Whether the data are those that a deployment can be started on."""
        return self.services.journal.ledger.fit(self.name, release_of(deployment.pair))

    def forget(self) -> None:
        """The app is gone from this host: nothing that was told of it holds for one that may come back."""
        self.wanted = self.unhealthy = None
        self.placed = False
        self._state = AppState.EMPTY
        self._instances = (0, ())
        self._conditions.clear()

    def failed(self, failure: FailureInfo, run: str = "") -> None:
        """Tell a failure that people want to read later."""
        self.services.bus.publish(AppFailed(self.name, failure, run))

    def instances(self, wanted: int, instances: tuple[Instance, ...]) -> None:
        """Tell who is there, when that changes."""
        if self._instances != (wanted, instances):
            self._instances = (wanted, instances)
            self.services.bus.publish(InstancesChanged(self.name, wanted, instances))

    def state(self, state: AppState) -> None:
        """Tell the one word for this app, when it changes."""
        if state is not self._state:
            self._state = state
            self.services.bus.publish(AppStateChanged(self.name, str(state)))
