"""What the board knows of each app: plain records, and their form in /status.

Times are seconds since the epoch inside, RFC 3339 in UTC outside; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.domain.errors import FailureInfo
from agent.domain.model import AppState, Condition, Instance, Pair, PlannedStep, RunResult, StepResult
from agent.kit.clock import rfc3339
from agent.status.job_picture import JobPicture

Json = dict[str, Any]
"""A JSON object."""

LATE = 2.0  # seconds by which a step may at least exceed what is usual
SILENT = frozenset({AppState.EMPTY, AppState.FAILED, AppState.STOPPED, AppState.MAINTENANCE})


@dataclass(slots=True)
class StepPicture:
    """One step of a run."""

    name: str
    kind: str
    reason: str = ""
    needs: tuple[str, ...] = ()
    state: StepResult = StepResult.PENDING
    started: float = 0.0
    seconds: float = 0.0
    attempt: int = 0
    progress: tuple[int, int, str] | None = None  # done, total (0 = unknown), unit
    failure: FailureInfo | None = None

    def as_json(self, now: float, usual: float | None = None) -> Json:
        """The form in /status; a running step's seconds are those until `now`.

        `usual` are those it took in earlier runs: a running one is expected to end then.
        """
        running = self.state is StepResult.RUNNING
        return {
            "name": self.name,
            "kind": self.kind,
            "reason": self.reason,
            "needs": list(self.needs),
            "state": str(self.state),
            "started": rfc3339(self.started) or None,
            "seconds": round(max(0.0, now - self.started) if running else self.seconds, 4),
            "expected_end": rfc3339(self.started + usual) if running and usual is not None else None,
            "attempt": self.attempt,
            "progress": progress_json(self.progress),
            "failure": None if self.failure is None else failure_json(self.failure),
        }


@dataclass(slots=True)
class RunPicture:
    """One run, under way or ended."""

    id: str
    sync: str
    reason: str
    started: float
    steps: dict[str, StepPicture] = field(default_factory=dict)
    result: RunResult = RunResult.RUNNING
    seconds: float = 0.0
    failure: FailureInfo | None = None
    usual: Mapping[str, float] = field(default_factory=dict)  # seconds of a step in earlier runs, by name

    @classmethod
    def planned(
        cls, run: str, sync: str, reason: str, at: float, steps: tuple[PlannedStep, ...]
    ) -> RunPicture:
        """A run that begins, its steps pending."""
        pictures = {s.name: StepPicture(s.name, s.kind, s.reason, s.needs) for s in steps}
        return cls(run, sync, reason, at, pictures)

    @property
    def phase(self) -> str:
        """The kind of the newest running step, in one word; "" between steps."""
        running = [s for s in self.steps.values() if s.state is StepResult.RUNNING]
        return max(running, key=lambda s: s.started).kind if running else ""

    def late(self, now: float) -> bool:
        """Whether a step takes far longer than it did in earlier runs."""
        return any(
            step.state is StepResult.RUNNING and now - step.started > LATE + 2 * self.usual[step.name]
            for step in self.steps.values()
            if step.name in self.usual
        )

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the new version serves, if every step takes as long as in earlier runs.

        None when that is not known: a step was in none of them, or one is late.
        """
        if self.late(now):
            return None
        ends: dict[str, float | None] = {}

        def end(name: str) -> float | None:
            if name not in ends:
                ends[name] = None  # should there be a circle, nothing is known
                own = self._left(self.steps[name], now)
                before = [end(need) for need in self.steps[name].needs if need in self.steps]
                known = [each for each in before if each is not None]
                if own is not None and len(known) == len(before):
                    ends[name] = own + max(known, default=0.0)
            return ends[name]

        found = [end(name) for name in (["switch"] if "switch" in self.steps else self.steps)]
        return None if None in found else max((each for each in found if each is not None), default=None)

    def _left(self, step: StepPicture, now: float) -> float | None:
        if step.state in (StepResult.SUCCEEDED, StepResult.SKIPPED):
            return 0.0
        if step.name not in self.usual or step.state not in (StepResult.RUNNING, StepResult.PENDING):
            return None
        gone = max(0.0, now - step.started) if step.state is StepResult.RUNNING else 0.0
        return max(0.0, self.usual[step.name] - gone)

    def as_json(self, now: float) -> Json:
        """The form in /status."""
        ended = self.result is not RunResult.RUNNING
        return {
            "id": self.id,
            "sync": self.sync,
            "reason": self.reason,
            "started": rfc3339(self.started) or None,
            "seconds": round(self.seconds if ended else max(0.0, now - self.started), 4),
            "result": str(self.result),
            "phase": self.phase,
            "seconds_left": None if ended or (left := self.seconds_left(now)) is None else round(left, 4),
            "failure": None if self.failure is None else failure_json(self.failure),
            "steps": [step.as_json(now, self.usual.get(name)) for name, step in self.steps.items()],
        }


@dataclass(slots=True)
class FailurePicture:
    """The newest failure people want to read, and where it happened."""

    info: FailureInfo
    at: float
    run: str = ""

    def as_json(self) -> Json:
        """The form in /status, with the log lines that explain it."""
        return {**whole_failure_json(self.info), "at": rfc3339(self.at), "run": self.run or None}


@dataclass(slots=True)
class ChildPicture:
    """The children of an app: two during an overlap and a probation, one most of the time.

    `running` holds pid and start by the child's id, the newest last. `restarts` are those of what
    serves now. `last_exit` is the newest end that nobody asked for, or that left no child. `restarting` says
    why, and from when on (epoch seconds), one that ended is started again; `instances` are all there are.
    `tier`, `held` and `lacking` are the newest one's isolation.
    """

    running: dict[str, tuple[int, float]] = field(default_factory=dict)
    restarts: int = 0
    last_exit: Json | None = None
    restarting: tuple[str, float] | None = None
    wanted: int = 0
    instances: tuple[Instance, ...] = ()
    tier: str = ""
    held: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def serving(self) -> list[Instance]:
        """Those that clients are shared out to."""
        return [instance for instance in self.instances if instance.state == "serving"]

    def as_json(self) -> Json:
        """The form in /status: the newest child that runs, and each instance."""
        pid, since = next(reversed(self.running.values()), (None, 0.0))
        restarting = self.restarting
        return {
            "pid": pid,
            "since": rfc3339(since) or None,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "restarting": None
            if restarting is None
            else {"reason": restarting[0], "due": rfc3339(restarting[1])},
            "instances_wanted": self.wanted,
            "instances": [
                {
                    "number": each.number,
                    "name": each.child,
                    "pid": each.pid,
                    "version": each.version,
                    "state": each.state,
                    "status": each.said or None,
                    "since": rfc3339(self.running.get(each.child, (0, 0.0))[1]) or None,
                }
                for each in self.instances
            ],
            "isolation": {"tier": self.tier, "in_force": list(self.held), "lacking": dict(self.lacking)},
        }


@dataclass(slots=True)
class AppPicture:
    """All that is known of one app."""

    name: str
    state: str = AppState.EMPTY
    current: Pair | None = None
    good: Pair | None = None
    wanted: Pair | None = None
    wanted_reason: str = ""
    run: RunPicture | None = None
    last_run: RunPicture | None = None
    conditions: dict[str, Condition] = field(default_factory=dict)
    last_failure: FailurePicture | None = None
    child: ChildPicture | None = None
    gate: str | None = None
    canary_percent: int = 0  # of new connections, for the new version; 0 without a canary
    job: JobPicture | None = None

    @property
    def serving(self) -> bool:
        """Whether the app answers its clients by itself, or, without a process, has its files in place.

        While it updates, the gate knows; without a gate, the child.
        """
        if self.state in SILENT:
            return False
        if self.gate is not None:
            return self.gate in ("open", "canary")
        if self.state == AppState.UPDATING:
            return self.current is not None and (self.child is None or bool(self.child.running))
        return True

    @property
    def answered_for(self) -> bool:
        """Whether the page or a hold stands in on purpose."""
        return self.state == AppState.MAINTENANCE or self.gate in ("maintenance", "holding")

    def as_json(self, now: float) -> Json:
        """The form in /status."""
        return {
            "state": str(self.state),
            "serving": self.serving,
            "gate": self.gate,
            "canary_percent": self.canary_percent or None,
            "current": pair_json(self.current),
            "good": pair_json(self.good),
            "wanted": wanted_json(self.wanted, self.wanted_reason),
            "run": None if self.run is None else self.run.as_json(now),
            "last_run": None if self.last_run is None else self.last_run.as_json(now),
            "conditions": conditions_json(self.conditions),
            "last_failure": None if self.last_failure is None else self.last_failure.as_json(),
            "child": None if self.child is None else self.child.as_json(),
            "job": None if self.job is None else self.job.as_json(),
        }


def pair_json(pair: Pair | None) -> Json | None:
    """What serves or served."""
    if pair is None:
        return None
    return {
        "version": pair.version,
        "commit": pair.commit,
        "digest": pair.digest,
        "spec": pair.spec,
        "release": pair.release,
        "generation": pair.generation,
        "since": rfc3339(pair.since) or None,
        "signer": pair.signer or None,
        "artifact_signer": pair.artifact_signer or None,
    }


def wanted_json(pair: Pair | None, reason: str) -> Json | None:
    """What is wanted: it serves since never, so it has a reason in place of a time."""
    if pair is None:
        return None
    return {
        "version": pair.version,
        "commit": pair.commit,
        "digest": pair.digest,
        "spec": pair.spec,
        "reason": reason,
    }


def failure_json(failure: FailureInfo) -> Json:
    """A failure without its log lines."""
    return {
        "reason": failure.reason,
        "message": failure.message,
        "where": failure.where,
        "remedy": failure.remedy,
        "kind": str(failure.kind),
    }


def whole_failure_json(failure: FailureInfo) -> Json:
    """A failure with the lines that explain it: a program's last ones, or every mistake of a state."""
    return {**failure_json(failure), "log": list(failure.log)}


def progress_json(progress: tuple[int, int, str] | None) -> Json | None:
    """How far a step is; total 0 means unknown."""
    return None if progress is None else dict(zip(("done", "total", "unit"), progress, strict=True))


def condition_json(condition: Condition) -> Json:
    """A condition."""
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": condition.message,
        "since": rfc3339(condition.since) or None,
    }


def conditions_json(conditions: Mapping[str, Condition]) -> list[Json]:
    """Conditions in the order in which they first appeared."""
    return [condition_json(c) for c in conditions.values()]


def keep_condition(conditions: dict[str, Condition], new: Condition, at: float) -> None:
    """Put `new` in its place. `since` stays while the status stays; status False without a reason removes."""
    if new.status == "False" and not new.reason:
        conditions.pop(new.type, None)
        return
    old = conditions.get(new.type)
    since = old.since if old is not None and old.status == new.status else new.since or at
    conditions[new.type] = Condition(new.type, new.status, new.reason, new.message, since)
