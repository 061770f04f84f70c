"""Facts, published by those who act and heard by the board, the metrics and the log.

`app` is the app's name; ids are those of `model.new_id`; `at` is seconds since the epoch.
Publishing is synchronous and cheap; a listener that raises is logged, never the publisher's problem.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.domain.errors import FailureInfo
from agent.domain.model import (
    Condition,
    Instance,
    Pair,
    PlannedStep,
    RunResult,
    StepResult,
    SyncResult,
    TriggerKind,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all facts."""

    at: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True, slots=True)
class TriggerHeard(Event):
    """A trigger came in. verdict: accepted, merged, duplicate, ignored or rejected; reason says why."""

    kind: TriggerKind
    verdict: str
    reason: str = ""
    sync: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PollScheduled(Event):
    """When the next poll is due (seconds since the epoch) and why then."""

    due: float
    reason: str


@dataclass(frozen=True, slots=True)
class PushMissed(Event):
    """Polling found a commit that no webhook announced; `again`: nor was the one before it."""

    commit: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class SyncStarted(Event):
    """One look at the truth begins."""

    sync: str
    kinds: tuple[TriggerKind, ...]


@dataclass(frozen=True, slots=True)
class SyncResolved(Event):
    """The commit of this sync is known."""

    sync: str
    commit: str
    signer: str = ""


@dataclass(frozen=True, slots=True)
class SyncFinished(Event):
    """A sync ended; `failure` is its own (Git, schema), not that of a run."""

    sync: str
    result: SyncResult
    commit: str = ""
    failure: FailureInfo | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AppWanted(Event):
    """What is wanted of an app, and why there is or is not a run for it."""

    app: str
    wanted: Pair
    reason: str


@dataclass(frozen=True, slots=True)
class AppRemoved(Event):
    """An app is gone from the state and was stopped."""

    app: str


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A run of an app's task graph began."""

    run: str
    sync: str
    app: str
    reason: str
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class RunEstimated(Event):
    """How long the steps of a run took in earlier ones: seconds by name, for those that were there."""

    run: str
    app: str
    usual: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step began; attempt counts from 1."""

    run: str
    app: str
    step: str
    kind: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class StepProgress(Event):
    """A step tells how far it is; total is 0 when unknown."""

    run: str
    app: str
    step: str
    done: int
    total: int
    unit: str = "bytes"


@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    """A step ended."""

    run: str
    app: str
    step: str
    kind: str
    result: StepResult
    seconds: float
    failure: FailureInfo | None = None


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """A run ended."""

    run: str
    sync: str
    app: str
    result: RunResult
    seconds: float
    failure: FailureInfo | None = None


@dataclass(frozen=True, slots=True)
class PairCurrent(Event):
    """This pair serves from now on (None: nothing does)."""

    app: str
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class PairGood(Event):
    """This pair proved itself (None: it is not known to be good any more)."""

    app: str
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class AppStateChanged(Event):
    """The one word for an app (an `AppState`)."""

    app: str
    state: str


@dataclass(frozen=True, slots=True)
class ChildStarted(Event):
    """A child runs, in an isolation of which some parts are in force; those that are not have a reason."""

    app: str
    child: str
    pid: int
    tier: str = "none"
    held: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChildExited(Event):
    """A child ended: an exit code, or the number of the signal that ended it."""

    app: str
    child: str
    code: int | None
    signal: int | None
    expected: bool
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildRestarting(Event):
    """A child that ended by itself will be started again after `delay` seconds."""

    app: str
    delay: float
    reason: str


@dataclass(frozen=True, slots=True)
class InstancesChanged(Event):
    """The children of an app, and how many of them are wanted to serve."""

    app: str
    wanted: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class AppFailed(Event):
    """Something about an app went wrong in a way people want to read later."""

    app: str
    failure: FailureInfo
    run: str = ""


@dataclass(frozen=True, slots=True)
class GateChanged(Event):
    """The state of an app's gate: closed, maintenance, holding, open or canary; "" when it has none."""

    app: str
    state: str
    percent: int = 0  # a canary's share


@dataclass(frozen=True, slots=True)
class RequestsAnswered(Event):
    """The responder answered `count` requests with the maintenance page, or held them."""

    app: str
    count: int
    how: str  # "page" or "held"


@dataclass(frozen=True, slots=True)
class ConditionChanged(Event):
    """A condition of an app, or of the agent (app = ""), changed. status False with reason "" removes it."""

    app: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class DriftFound(Event):
    """Managed files or links of an app were changed on this host; `repaired` says that they are put right."""

    app: str
    what: tuple[str, ...]
    repaired: bool


@dataclass(frozen=True, slots=True)
class PauseChanged(Event):
    """Updates are paused (message) or not (None). Polling and webhooks go on, runs do not start."""

    message: str | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class ExecStarted(Event):
    """Somebody runs a program in an app (`emptybox exec`), with so many arguments, which are told nobody."""

    app: str
    id: str
    by: str
    program: str
    arguments: int


@dataclass(frozen=True, slots=True)
class ExecEnded(Event):
    """It ended, after so many seconds; `result` says how, in words, or why it could not be started."""

    app: str
    id: str
    by: str
    program: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NoticeTried(Event):
    """A commit status or a notice was delivered to `channel`, or not; so many wait for it."""

    channel: str
    delivered: bool
    waiting: int


Listener = Callable[[Event], None]


class Bus:
    """Hands each published fact to every listener, in order of subscription."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; returns the function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        """Tell everyone. Never raises."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", type(event).__name__)
