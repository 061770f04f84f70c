"""Realistic sequences of facts, as the deployer, the gate and the supervisor publish them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.domain import events as facts
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import (
    Condition,
    ConditionStatus,
    Pair,
    PlannedStep,
    RunResult,
    StepResult,
    SyncResult,
    TriggerKind,
)
from agent.status.board import AgentInfo, Board
from agent.status.metrics import Metrics

START = 1_795_000_000.0
OVERLAP = ("fetch", "verify", "unpack", "render", "check", "start", "probe", "switch", "drain")

PROBE_FAILED = FailureInfo(
    FailureKind.PERMANENT,
    "ProbeFailed",
    "GET /healthz answered 500 for 30 s",
    where="probe",
    remedy="mend the app and push again, or `emptybox retry web`",
    log=("Traceback (most recent call last):", '  File "server.py", line 12', "KeyError: 'DATABASE_URL'"),
)
GIT_AWAY = FailureInfo(
    FailureKind.TRANSIENT, "GitUnavailable", "connection refused", where="https://git.example.com/state.git"
)


def pair(version: str, commit: str = "", since: float = START) -> Pair:
    """A pair whose digests follow from its version."""
    digest = hashlib.sha256(version.encode()).hexdigest()
    return Pair(
        spec=digest[:40],
        release=f"web-{digest[:16]}",
        generation=digest[-16:],
        version=version,
        commit=commit or hashlib.sha1(version.encode()).hexdigest(),
        digest=f"sha256:{digest}",
        since=since,
    )


def plan(*steps: str) -> tuple[PlannedStep, ...]:
    """Steps in a row."""
    return tuple(
        PlannedStep(name, name, f"why {name}", steps[max(0, i - 1) : i]) for i, name in enumerate(steps)
    )


def condition(kind: str, status: bool, reason: str, message: str = "") -> Condition:
    """A condition without a time."""
    return Condition(kind, ConditionStatus.TRUE if status else ConditionStatus.FALSE, reason, message)


@dataclass
class Stage:
    """A bus with a board and metrics on it, and a clock that moves only when told to."""

    labels: Mapping[str, str] = field(default_factory=lambda: {"env": "prod", "zone": "eu-1"})
    now: float = START

    def __post_init__(self) -> None:
        self.bus = facts.Bus()
        info = AgentInfo(
            version="0.1.0",
            host="web-1.example.com",
            labels=self.labels,
            started=START,
            pid=7,
            repo="https://git.example.com/acme/state.git",
            ref="main",
            path="state.yaml",
            data_format=1,
        )
        self.board = Board(self.bus, info, lambda: self.now)
        self.metrics = Metrics(self.bus, self.board, lambda: self.now)
        self._number = 0

    def tell(self, *events: facts.Event) -> None:
        """Publish facts at the stage's time."""
        for event in events:
            object.__setattr__(event, "at", self.now)
            self.bus.publish(event)

    def new_id(self, kind: str) -> str:
        """An id that sorts by time, as real ones do."""
        self._number += 1
        return f"{kind}-{self._number:04}"

    def begin_sync(self, kind: TriggerKind = TriggerKind.PUSH, commit: str = "c0ffee" * 6) -> str:
        """A trigger came and its commit is known."""
        sync = self.new_id("sync")
        self.tell(
            facts.TriggerHeard(kind, "accepted", "", sync, "gitea 1234"),
            facts.SyncStarted(sync, (kind,)),
            facts.SyncResolved(sync, commit),
            facts.ConditionChanged("", condition("SourceReachable", True, "Reachable")),
            facts.ConditionChanged("", condition("StateValid", True, "Valid")),
        )
        return sync

    def end_sync(self, sync: str, result: SyncResult, failure: FailureInfo | None = None) -> None:
        """The sync's end, or another one later."""
        self.tell(facts.SyncFinished(sync, result, "c0ffee" * 6, failure, 1.5))

    def begin_run(self, app: str, wanted: Pair, sync: str, steps: Sequence[str] = OVERLAP) -> str:
        """A run of a new version begins."""
        run = self.new_id("run")
        reason = f"version {wanted.version} is wanted"
        self.tell(
            facts.AppWanted(app, wanted, reason),
            facts.RunStarted(run, sync, app, reason, plan(*steps)),
            facts.AppStateChanged(app, "updating"),
        )
        return run

    def step(
        self,
        app: str,
        run: str,
        name: str,
        seconds: float = 0.02,
        result: StepResult = StepResult.SUCCEEDED,
        failure: FailureInfo | None = None,
    ) -> None:
        """One whole step."""
        self.tell(facts.StepStarted(run, app, name, name))
        self.now += seconds
        self.tell(facts.StepFinished(run, app, name, name, result, seconds, failure))

    def child(self, app: str, run: str, pid: int) -> None:
        """A child runs."""
        self.tell(facts.ChildStarted(app, f"{app}/{run}", pid))

    def switched(self, app: str, run: str, sync: str, wanted: Pair, pid: int = 100) -> None:
        """All steps of an overlap went well: the release serves, on probation."""
        for name in OVERLAP:
            if name == "start":
                self.child(app, run, pid)
            self.step(app, run, name, {"fetch": 0.4, "probe": 0.25}.get(name, 0.02))
        self.tell(
            facts.GateChanged(app, "open"),
            facts.PairCurrent(app, wanted),
            facts.RunFinished(run, sync, app, RunResult.PROBATION, 0.83),
            facts.AppStateChanged(app, "probation"),
        )
        self.end_sync(sync, SyncResult.PROBATION)

    def proven(self, app: str, run: str, sync: str, wanted: Pair) -> None:
        """Probation is over, well."""
        self.tell(
            facts.PairGood(app, wanted),
            facts.RunFinished(run, sync, app, RunResult.SUCCEEDED, 0.83),
            facts.AppStateChanged(app, "running"),
        )
        self.end_sync(sync, SyncResult.SUCCEEDED)

    def deploy(self, app: str, version: str, pid: int = 100) -> tuple[str, str]:
        """A version is deployed and proves itself; (run, sync)."""
        wanted, sync = pair(version, since=self.now), self.begin_sync()
        run = self.begin_run(app, wanted, sync)
        self.switched(app, run, sync, wanted, pid)
        self.now += 30.0
        self.proven(app, run, sync, wanted)
        return run, sync

    def rolled_back(self, app: str, run: str, sync: str, good: Pair, failure: FailureInfo) -> None:
        """A release on probation fails: the good one serves again, the bad one is quarantined."""
        self.tell(
            facts.AppFailed(app, failure, run),
            facts.GateChanged(app, "open"),
            facts.PairCurrent(app, good),
            facts.RunFinished(run, sync, app, RunResult.ROLLED_BACK, 4.2, failure),
            facts.ConditionChanged(app, condition("Quarantined", True, failure.reason, str(failure.message))),
            facts.AppStateChanged(app, "degraded"),
        )
        self.end_sync(sync, SyncResult.ROLLED_BACK, failure)
