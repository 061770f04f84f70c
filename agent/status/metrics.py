"""Prometheus metrics: counters that hear facts, and gauges read from the board when scraped.

Labels stay few: an app's series go when the app goes, step kinds are those of the catalogue, reasons
those of the vocabulary. All names begin with `emptybox_`; the process's own `process_*` are beside them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from agent.domain import events as facts
from agent.domain import job_events
from agent.domain.errors import FailureInfo
from agent.domain.model import AppState, RunResult, StepResult, SyncResult
from agent.status.board import Board
from agent.status.conditions import ENVIRONMENT_FAILING, QUARANTINED, known_reason
from agent.status.job_metrics import of_jobs
from agent.status.picture import ChildPicture

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text `Metrics.text` gives."""

STEP_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
STEP_KINDS_MAX = 40
REFUSALS_MAX = 100  # pairs of forge and reason
VERDICTS = frozenset({"accepted", "merged", "duplicate", "ignored", "rejected"})


class Metrics:
    """All metrics of one agent, in a registry of its own.

    Args:
        bus: where facts come from.
        board: the picture that gauges are read from.
        clock: seconds since the epoch.
    """

    def __init__(self, bus: facts.Bus, board: Board, clock: Callable[[], float] = time.time) -> None:
        # A second series beside each counter, which nobody reads:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._runs = Counter(
            "emptybox_runs", "Runs that ended, by result.", ["app", "result"], registry=registry
        )
        self._syncs = Counter("emptybox_syncs", "Syncs that ended, by result.", ["result"], registry=registry)
        self._steps = Histogram(
            "emptybox_step_duration_seconds",
            "How long steps took that succeeded or failed.",
            ["app", "kind"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "emptybox_failures",
            "Failures of syncs (no app), of runs and of apps between runs, by reason.",
            ["app", "reason"],
            registry=registry,
        )
        self._restarts = Counter(
            "emptybox_child_restarts",
            "Restarts of children that ended by themselves.",
            ["app"],
            registry=registry,
        )
        self._triggers = Counter(
            "emptybox_triggers",
            "Triggers heard, by source and verdict.",
            ["source", "verdict"],
            registry=registry,
        )
        self._rejected = Counter(
            "emptybox_webhook_rejected",
            "Deliveries that were turned away, by the forge they seem to come from and the reason.",
            ["forge", "reason"],
            registry=registry,
        )
        self._notices = Counter(
            "emptybox_notices",
            "Commit statuses and notices that were tried to deliver, by channel and result.",
            ["channel", "result"],
            registry=registry,
        )
        self._answered = Counter(
            "emptybox_maintenance_requests",
            "Requests answered by the maintenance page, or held until a child could answer.",
            ["app", "how"],
            registry=registry,
        )
        self._drift = Counter(
            "emptybox_drift",
            "Times that managed files or links were found changed on this host, and what was done.",
            ["app", "how"],
            registry=registry,
        )
        self._jobs = Counter(
            "emptybox_job_runs",
            "Runs of jobs, and times that had none.",
            ["app", "result"],
            registry=registry,
        )
        self._of_app: dict[str, set[tuple[Any, tuple[str, ...]]]] = {}
        self._kinds: set[str] = set()
        self._refusals: set[tuple[str, str]] = set()
        self._counted: dict[str, tuple[str, str]] = {}
        self._picture = PictureCollector(board, clock)
        registry.register(self._picture)
        self._lag = LoopLag()
        registry.register(self._lag)
        ProcessCollector(registry=registry)
        self._handlers = self._table()
        self.unsubscribe = bus.subscribe(self.hear)

    def _table(self) -> dict[type[facts.Event], Callable[[Any], None]]:
        return {
            facts.RunFinished: self._run_finished,
            facts.SyncFinished: self._sync_finished,
            facts.StepFinished: self._step_finished,
            facts.AppFailed: self._app_failed,
            facts.ChildRestarting: lambda e: self._count(self._restarts, e.app),
            facts.TriggerHeard: self._trigger_heard,
            facts.DriftFound: lambda e: self._count(self._drift, e.app, "repaired" if e.repaired else "told"),
            facts.RequestsAnswered: lambda e: self._count(self._answered, e.app, e.how, by=e.count),
            facts.NoticeTried: self._notice_tried,
            job_events.JobEnded: self._job_ended,
            job_events.JobPassed: lambda e: self._count(self._jobs, e.app, str(e.result), by=e.count),
            facts.AppRemoved: self._removed,
        }

    def hear(self, event: facts.Event) -> None:
        """Take one fact in."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def loop_lag(self, seconds: float) -> None:
        """Record how late the event loop woke up."""
        self._lag.observe(seconds)

    async def text(self) -> bytes:
        """The text exposition format. The board is read here and now, the text made in a thread."""
        self._picture.look()
        return await asyncio.to_thread(generate_latest, self.registry)

    def _series(self, metric: Any, app: str, *labels: str) -> Any:
        self._of_app.setdefault(app, set()).add((metric, (app, *labels)))
        return metric.labels(app, *labels)

    def _count(self, metric: Counter, app: str, *labels: str, by: float = 1.0) -> None:
        self._series(metric, app, *labels).inc(by)

    def _removed(self, event: facts.AppRemoved) -> None:
        self._counted.pop(event.app, None)
        for metric, labels in self._of_app.pop(event.app, ()):
            metric.remove(*labels)

    def _failure(self, app: str, run: str, failure: FailureInfo | None) -> None:
        if failure is None or (run and self._counted.get(app) == (run, failure.reason)):
            return  # one failure of a run is told by the run's end and as the app's failure
        self._counted[app] = (run, failure.reason)
        self._count(self._failures, app, known_reason(failure.reason))

    def _trigger_heard(self, event: facts.TriggerHeard) -> None:
        verdict = event.verdict if event.verdict in VERDICTS else "other"
        self._triggers.labels(str(event.kind), verdict).inc()
        if verdict == "rejected":
            told = (event.detail or "unknown", event.reason)
            if told not in self._refusals and len(self._refusals) >= REFUSALS_MAX:
                told = ("other", "other")
            self._refusals.add(told)
            self._rejected.labels(*told).inc()

    def _notice_tried(self, event: facts.NoticeTried) -> None:
        self._notices.labels(event.channel, "delivered" if event.delivered else "failed").inc()

    def _run_finished(self, event: facts.RunFinished) -> None:
        if event.result is RunResult.PROBATION:
            return  # it is told again with the final word
        self._count(self._runs, event.app, str(event.result))
        self._failure(event.app, event.run, event.failure)

    def _job_ended(self, event: job_events.JobEnded) -> None:
        if not event.earlier:
            self._count(self._jobs, event.app, str(event.run.result))

    def _sync_finished(self, event: facts.SyncFinished) -> None:
        if event.result is SyncResult.PROBATION:
            return
        self._syncs.labels(str(event.result)).inc()
        self._failure("", "", event.failure)

    def _app_failed(self, event: facts.AppFailed) -> None:
        self._failure(event.app, event.run, event.failure)

    def _step_finished(self, event: facts.StepFinished) -> None:
        if event.result not in (StepResult.SUCCEEDED, StepResult.FAILED):
            return
        kind = event.kind if event.kind in self._kinds or len(self._kinds) < STEP_KINDS_MAX else "other"
        self._kinds.add(kind)
        self._series(self._steps, event.app, kind).observe(event.seconds)


class LoopLag(Collector):
    """How late the event loop wakes up: the last measure, and the worst since the agent started."""

    def __init__(self) -> None:
        self._last = self._worst = 0.0

    def observe(self, seconds: float) -> None:
        """Record one measure."""
        self._last, self._worst = seconds, max(self._worst, seconds)

    def collect(self) -> Iterable[Metric]:
        """Both gauges."""
        yield GaugeMetricFamily(
            "emptybox_event_loop_lag_seconds", "How late the event loop woke up.", self._last
        )
        yield GaugeMetricFamily(
            "emptybox_event_loop_lag_max_seconds", "The same, at its worst since the start.", self._worst
        )


class PictureCollector(Collector):
    """Gauges that are true at the moment of the scrape, because they are read from the board then."""

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._seen: list[Metric] = []

    def look(self) -> None:
        """Read the board: on the event loop, where nobody changes it meanwhile."""
        self._seen = [*self._of_agent(), *self._of_apps(), *of_jobs(self._board)]

    def collect(self) -> Iterable[Metric]:
        """What was seen last; everything about the agent, then everything about apps."""
        return self._seen

    def _of_agent(self) -> Iterable[Metric]:
        board, syncs = self._board, self._board.syncs
        info = InfoMetricFamily("emptybox_build", "The agent itself.")
        info.add_metric([], {"version": board.info.version})
        yield info
        yield GaugeMetricFamily("emptybox_paused", "Whether updates are paused.", bool(board.paused))
        yield GaugeMetricFamily(
            "emptybox_last_successful_sync_timestamp_seconds",
            "When the last successful sync ended, in seconds since the epoch; 0 when none did.",
            syncs.last_success,
        )
        yield GaugeMetricFamily(
            "emptybox_seconds_since_last_successful_sync",
            "Seconds since the last successful sync ended, or since the start when none did.",
            max(0.0, self._clock() - (syncs.last_success or board.info.started)),
        )
        yield CounterMetricFamily(
            "emptybox_missed_pushes",
            "Commits found by polling that no webhook announced.",
            syncs.missed_pushes,
        )
        yield GaugeMetricFamily(
            "emptybox_event_listeners", "Clients that listen to /events.", board.feed.listeners
        )

    def _of_apps(self) -> Iterable[Metric]:
        apps = self._board.apps
        up = GaugeMetricFamily("emptybox_app_up", "Whether the app answers its clients.", labels=["app"])
        info = GaugeMetricFamily(
            "emptybox_app_info", "What serves; always 1.", labels=["app", "version", "commit", "digest"]
        )
        state = GaugeMetricFamily(
            "emptybox_app_state", "1 for the state the app is in, 0 for the others.", labels=["app", "state"]
        )
        running = GaugeMetricFamily(
            "emptybox_app_run_in_progress", "Whether a run is under way.", labels=["app"]
        )
        quarantined = GaugeMetricFamily(
            "emptybox_app_quarantined",
            "Whether the wanted specification failed and is not tried again.",
            labels=["app"],
        )
        environment = GaugeMetricFamily(
            "emptybox_app_environment_failing",
            "Whether the last good version fails in the same way.",
            labels=["app"],
        )
        canary = GaugeMetricFamily(
            "emptybox_canary_percent",
            "Share of new connections that a new version gets on trial; 0 without a canary.",
            labels=["app"],
        )
        instances = GaugeMetricFamily(
            "emptybox_app_instances", "Programs of the app that serve its clients.", labels=["app"]
        )
        wanted = GaugeMetricFamily(
            "emptybox_app_instances_wanted", "How many there should be.", labels=["app"]
        )
        due = GaugeMetricFamily(
            "emptybox_child_restart_due_seconds",
            "Seconds until a program that ended is started again; 0 when none waits.",
            labels=["app"],
        )
        for name, app in apps.items():
            if app.child is not None:
                instances.add_metric([name], len(app.child.serving))
                wanted.add_metric([name], app.child.wanted)
                at = app.child.restarting[1] if app.child.restarting is not None else 0.0
                due.add_metric([name], max(0.0, at - self._clock()))
            true = Tally(c.type for c in app.conditions.values() if c.status == "True")
            up.add_metric([name], app.serving)
            running.add_metric([name], app.run is not None)
            canary.add_metric([name], app.canary_percent)
            quarantined.add_metric([name], true[QUARANTINED])
            environment.add_metric([name], true[ENVIRONMENT_FAILING])
            for word in AppState:
                state.add_metric([name, str(word)], app.state == word)
            if app.current is not None:
                pair = app.current
                info.add_metric([name, pair.version, pair.commit, pair.digest], 1)
        yield from (up, info, state, running, canary, quarantined, environment, instances, wanted, due)
        yield self._isolation()

    def _isolation(self) -> Metric:
        isolation = GaugeMetricFamily(
            "emptybox_app_isolation",
            "Each part of the isolation of the newest child: 1 in force, 0 lacking.",
            labels=["app", "tier", "part"],
        )
        for name, app in self._board.apps.items():
            child = app.child or ChildPicture()
            for parts, value in ((child.held, 1), (child.lacking, 0)):
                for part in parts:
                    isolation.add_metric([name, child.tier, part], value)
        return isolation
