"""The board: hears every fact and keeps the picture that /status, the dashboard and metrics show.

Facts change records, nothing else does. Two conditions follow from facts alone and are kept here: Paused
of the agent, Available of an app. `RunFinished` can be told again for the same run: once for a release
on probation, once with the final word; the last word stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agent.domain import events as facts
from agent.domain import job_events
from agent.domain.errors import FailureInfo
from agent.domain.model import Condition, ConditionStatus, StepResult
from agent.kit.clock import rfc3339
from agent.kit.mask import secrets
from agent.status.conditions import AVAILABLE, ISOLATED, PAUSED
from agent.status.feed import Feed
from agent.status.job_picture import JobPicture
from agent.status.picture import (
    AppPicture,
    ChildPicture,
    FailurePicture,
    Json,
    RunPicture,
    StepPicture,
    conditions_json,
    keep_condition,
)
from agent.status.syncs import SyncPictures

CHILDREN_MAX = 40  # of one app, in the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """What does not change while the agent lives. `repo` carries no credentials."""

    version: str
    host: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    started: float
    pid: int
    repo: str
    ref: str
    path: str
    data_format: int
    born: float = field(default_factory=time.monotonic)  # by the clock that nobody sets

    def as_json(self) -> Json:
        """The member `agent` of /status."""
        return {
            "version": self.version,
            "host": self.host,
            "labels": dict(self.labels),
            "started": rfc3339(self.started),
            "uptime_seconds": round(time.monotonic() - self.born, 3),
            "pid": self.pid,
            "data_format": self.data_format,
        }


class Board:
    """Keeps the picture. `feed` tells facts to listeners after the picture has them.

    Args:
        bus: where facts come from.
        info: the agent's own.
        clock: seconds since the epoch.
    """

    def __init__(self, bus: facts.Bus, info: AgentInfo, clock: Callable[[], float] = time.time) -> None:
        self.info = info
        self.apps: dict[str, AppPicture] = {}
        self.syncs = SyncPictures()
        self.paused: facts.PauseChanged | None = None
        self.feed = Feed(f"{int(info.started * 1000):x}")
        self._conditions: dict[str, Condition] = {}
        self._clock = clock
        self._handlers = self._table()
        self.unsubscribe = bus.subscribe(self.hear)

    def _table(self) -> dict[type[facts.Event], Callable[[Any], None]]:
        return {
            facts.TriggerHeard: self.syncs.trigger,
            facts.PollScheduled: self.syncs.scheduled,
            facts.PushMissed: self.syncs.missed,
            facts.SyncStarted: self.syncs.started,
            facts.SyncResolved: self.syncs.resolved,
            facts.SyncFinished: self.syncs.finished,
            facts.PauseChanged: self._pause,
            facts.AppRemoved: self._removed,
            facts.AppWanted: self._wanted,
            facts.RunStarted: self._run_started,
            facts.RunEstimated: self._run_estimated,
            facts.StepStarted: self._step_started,
            facts.StepProgress: self._step_progress,
            facts.StepFinished: self._step_finished,
            facts.RunFinished: self._run_finished,
            facts.PairCurrent: self._current,
            facts.PairGood: self._good,
            facts.AppStateChanged: self._state,
            facts.GateChanged: self._gate,
            facts.ChildStarted: self._child_started,
            facts.ChildExited: self._child_exited,
            facts.ChildRestarting: self._child_restarting,
            facts.InstancesChanged: self._instances,
            facts.AppFailed: self._failed,
            facts.ConditionChanged: self._condition,
            job_events.JobPlanned: self._job_planned,
            job_events.JobStarted: lambda e: self._job(e.app).started(e),
            job_events.JobEnded: lambda e: self._job(e.app).ended(e),
            job_events.JobPassed: lambda e: self._job(e.app).missed(e),
        }

    def hear(self, event: facts.Event) -> None:
        """Take one fact in."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        name = getattr(event, "app", "")
        if name in self.apps and not isinstance(event, facts.StepProgress):
            self._derive(self.apps[name], event.at)
        self.feed.tell(event)

    def _app(self, name: str) -> AppPicture:
        if name not in self.apps:
            self.apps[name] = AppPicture(name)
        return self.apps[name]

    def _pause(self, event: facts.PauseChanged) -> None:
        self.paused = None if event.message is None else event
        if event.message is None:
            self._conditions.pop(PAUSED, None)
        else:
            condition = Condition(PAUSED, ConditionStatus.TRUE, "ByOperator", event.message)
            keep_condition(self._conditions, condition, event.at)

    def _removed(self, event: facts.AppRemoved) -> None:
        self.apps.pop(event.app, None)

    def _wanted(self, event: facts.AppWanted) -> None:
        app = self._app(event.app)
        app.wanted, app.wanted_reason = event.wanted, event.reason

    def _run_started(self, event: facts.RunStarted) -> None:
        app = self._app(event.app)
        app.run = RunPicture.planned(event.run, event.sync, event.reason, event.at, event.steps)

    def _run_estimated(self, event: facts.RunEstimated) -> None:
        run = self._app(event.app).run
        if run is not None and run.id == event.run:
            run.usual = event.usual

    def _step(self, app: str, run: str, name: str, kind: str = "") -> StepPicture | None:
        picture = self._app(app).run
        if picture is None or picture.id != run:
            return None
        return picture.steps.setdefault(name, StepPicture(name, kind or name))

    def _step_started(self, event: facts.StepStarted) -> None:
        step = self._step(event.app, event.run, event.step, event.kind)
        if step is not None:
            step.state, step.started, step.attempt = StepResult.RUNNING, event.at, event.attempt
            step.progress = None

    def _step_progress(self, event: facts.StepProgress) -> None:
        step = self._step(event.app, event.run, event.step)
        if step is not None:
            step.progress = (event.done, event.total, event.unit)

    def _step_finished(self, event: facts.StepFinished) -> None:
        step = self._step(event.app, event.run, event.step, event.kind)
        if step is not None:
            step.state, step.seconds, step.failure = event.result, event.seconds, event.failure

    def _run_finished(self, event: facts.RunFinished) -> None:
        app = self._app(event.app)
        run = app.run
        if run is None or run.id != event.run:
            run = app.last_run
        else:
            app.run = None
        if run is None or run.id != event.run:
            run = RunPicture(event.run, event.sync, "", max(0.0, event.at - event.seconds))
        run.result, run.seconds, run.failure = event.result, event.seconds, event.failure
        app.last_run = run
        if event.failure is not None:
            self._keep_failure(app, event.failure, event.at, event.run)

    def _failed(self, event: facts.AppFailed) -> None:
        app = self._app(event.app)
        self._keep_failure(app, event.failure, event.at, event.run)

    def _keep_failure(self, app: AppPicture, failure: FailureInfo, at: float, run: str) -> None:
        before = app.last_failure
        again = before is not None and (before.run, before.info.reason) == (run, failure.reason)
        if again and before is not None and before.info.log and not failure.log:
            return  # told again, with less to read
        app.last_failure = FailurePicture(failure, at, run)

    def _current(self, event: facts.PairCurrent) -> None:
        app = self._app(event.app)
        changed = app.current is None or event.pair is None or app.current.spec != event.pair.spec
        app.current = event.pair
        if changed and app.child is not None:
            app.child.restarts = 0

    def _good(self, event: facts.PairGood) -> None:
        self._app(event.app).good = event.pair

    def _state(self, event: facts.AppStateChanged) -> None:
        self._app(event.app).state = event.state

    def _gate(self, event: facts.GateChanged) -> None:
        app = self._app(event.app)
        app.gate, app.canary_percent = event.state or None, event.percent

    def _child(self, app: str) -> ChildPicture:
        picture = self._app(app)
        picture.child = picture.child or ChildPicture()
        return picture.child

    def _child_started(self, event: facts.ChildStarted) -> None:
        child = self._child(event.app)
        child.restarting, running = None, child.running
        child.tier, child.held, child.lacking = event.tier, event.held, event.lacking
        self._isolation(self._app(event.app), event)
        running[event.child] = (event.pid, event.at)
        while len(running) > CHILDREN_MAX:
            del running[next(iter(running))]

    @staticmethod
    def _isolation(app: AppPicture, event: facts.ChildStarted) -> None:
        """A condition for what is kept from the newest child less than its tier says."""
        said = "; ".join(f"{part}: {reason}" for part, reason in event.lacking.items())
        status = ConditionStatus.FALSE if said else ConditionStatus.TRUE
        if said or ISOLATED in app.conditions:
            reason = "IsolationLacking" if said else "InForce"
            keep_condition(app.conditions, Condition(ISOLATED, status, reason, said), event.at)

    def _child_exited(self, event: facts.ChildExited) -> None:
        child = self._child(event.app)
        child.running.pop(event.child, None)
        if not event.expected or not child.running:
            child.last_exit = {
                "at": rfc3339(event.at),
                "code": event.code,
                "signal": event.signal,
                "expected": event.expected,
            }

    def _child_restarting(self, event: facts.ChildRestarting) -> None:
        child = self._child(event.app)
        child.restarts += 1
        child.restarting = (event.reason, event.at + event.delay)

    def _instances(self, event: facts.InstancesChanged) -> None:
        child = self._child(event.app)
        child.wanted, child.instances = event.wanted, event.instances

    def _job(self, app: str) -> JobPicture:
        picture = self._app(app)
        picture.job = picture.job or JobPicture()
        return picture.job

    def _job_planned(self, event: job_events.JobPlanned) -> None:
        if event.gone:
            self._app(event.app).job = None
        else:
            self._job(event.app).planned(event)

    def _condition(self, event: facts.ConditionChanged) -> None:
        if event.app:
            conditions = self._app(event.app).conditions
        else:
            conditions = self._conditions
        keep_condition(conditions, event.condition, event.at)

    def _derive(self, app: AppPicture, at: float) -> None:
        if app.serving:
            condition = Condition(AVAILABLE, ConditionStatus.TRUE, "Serving")
        else:
            condition = Condition(AVAILABLE, ConditionStatus.FALSE, "NotServing", self._not_serving(app))
        keep_condition(app.conditions, condition, at)

    @staticmethod
    def _not_serving(app: AppPicture) -> str:
        return str(app.state) if app.gate is None else f"{app.state}, its port is {app.gate}"

    def unready(self, *, page_ok: bool = False) -> list[str]:
        """Why this host is not ready: one line an app that does not serve; empty when it is ready.

        `page_ok` counts a page or a hold that stands in on purpose as serving.
        """
        if not self.apps and not self.syncs.last_success:
            return ["no sync has succeeded yet"]
        return [
            f"{app.name}: {self._not_serving(app)}"
            for app in self.apps.values()
            if not app.serving and not (page_ok and app.answered_for)
        ]

    def snapshot(self) -> Json:
        """The whole picture as JSON, with secrets masked."""
        now = self._clock()
        paused = self.paused
        picture = {
            "agent": self.info.as_json(),
            "source": {
                "repo": self.info.repo,
                "ref": self.info.ref,
                "path": self.info.path,
                **self.syncs.as_json(now),
            },
            "paused": None
            if paused is None
            else {"message": paused.message, "by": paused.by, "since": rfc3339(paused.at)},
            "conditions": conditions_json(self._conditions),
            "apps": {name: app.as_json(now) for name, app in self.apps.items()},
        }
        masked: Json = secrets.data(picture)
        return masked
