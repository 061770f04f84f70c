"""Facts as sentences in the log: what an operator who follows the log wants to read, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from agent.domain import events as facts
from agent.domain import job_events
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.job import JobResult
from agent.domain.model import RunResult, StepResult, SyncResult
from agent.kit.clock import rfc3339, span
from agent.status.log import bind

log = logging.getLogger("emptybox")

Line = tuple[int, str]
INFO, DEBUG, WARNING, ERROR = logging.INFO, logging.DEBUG, logging.WARNING, logging.ERROR

_LOG_LINES = 10  # of a failed program, in our log; the rest is in /status


def narrate(bus: facts.Bus) -> Callable[[], None]:
    """Log the facts of `bus` that are worth a line. Returns the function that stops it."""
    return bus.subscribe(_tell)


def _tell(event: facts.Event) -> None:
    line = sentence(event)
    if line is None or not log.isEnabledFor(line[0]):
        return
    ids = {name: getattr(event, name, "") for name in ("sync", "run")}
    ids = {name: value for name, value in ids.items() if isinstance(value, str)}
    with bind(**ids):
        log.log(line[0], "%s", line[1])
        for text in _last_lines(event):
            log.log(line[0], "%s", text)


def sentence(event: facts.Event) -> Line | None:
    """Level and text of a fact; None when it is not worth a line."""
    teller = _TELLERS.get(type(event))
    return None if teller is None else teller(event)


def _last_lines(event: facts.Event) -> list[str]:
    failure = getattr(event, "failure", None)
    if not isinstance(event, facts.AppFailed) or failure is None:  # the run's end comes with it
        return []
    return [f"{event.app}:   | {text}" for text in failure.log[-_LOG_LINES:]]


def _because(failure: FailureInfo | None) -> str:
    return "" if failure is None else f": {failure.reason}: {failure}"


def _level(failure: FailureInfo | None) -> int:
    return WARNING if failure is not None and failure.kind is FailureKind.TRANSIENT else ERROR


def _trigger(event: facts.TriggerHeard) -> Line:
    told = ", ".join(text for text in (event.detail, event.reason) if text)
    level = INFO if event.verdict in ("accepted", "rejected") else DEBUG
    return level, f"trigger {event.kind} {event.verdict}{f' ({told})' if told else ''}"


def _missed(event: facts.PushMissed) -> Line:
    text = f"polling found {event.commit[:12]}, which no webhook announced"
    if event.again:
        return DEBUG, text
    return WARNING, f"{text}: look at the forge's list of deliveries; polling goes faster until they come"


def _sync_finished(event: facts.SyncFinished) -> Line:
    took = f"in {span(event.seconds)}" if event.seconds else ""
    at = f" at {event.commit[:12]}" if event.commit else ""
    text = f"sync {event.result}{at} {took}".rstrip() + _because(event.failure)
    if event.result is SyncResult.UNCHANGED:
        return DEBUG, text
    well = event.result in (SyncResult.SUCCEEDED, SyncResult.SUPERSEDED, SyncResult.PROBATION)
    return INFO if well else _level(event.failure), text


def _run_started(event: facts.RunStarted) -> Line:
    return INFO, f"{event.app}: run begins: {event.reason} ({', '.join(s.name for s in event.steps)})"


def _step_finished(event: facts.StepFinished) -> Line:
    if event.result is StepResult.SUCCEEDED:
        return INFO, f"{event.app}: step {event.step} done in {span(event.seconds)}"
    text = f"{event.app}: step {event.step} {event.result}"
    if event.result is StepResult.FAILED:
        return WARNING, f"{text} after {span(event.seconds)}{_because(event.failure)}"
    return DEBUG if event.result is StepResult.SKIPPED else INFO, text


def _run_finished(event: facts.RunFinished) -> Line:
    if event.result is RunResult.PROBATION:
        return INFO, f"{event.app}: run switched after {span(event.seconds)}; the release is on probation"
    text = f"{event.app}: run {event.result} after {span(event.seconds)}{_because(event.failure)}"
    if event.result in (RunResult.FAILED, RunResult.ROLLED_BACK):
        return _level(event.failure), text
    well = (RunResult.SUCCEEDED, RunResult.CANCELLED, RunResult.PREPARED)
    return (INFO if event.result in well else WARNING), text


def _current(event: facts.PairCurrent) -> Line:
    if event.pair is None:
        return WARNING, f"{event.app}: nothing serves"
    return INFO, f"{event.app}: version {event.pair.version} serves (commit {event.pair.commit[:12]})"


def _good(event: facts.PairGood) -> Line | None:
    return None if event.pair is None else (INFO, f"{event.app}: version {event.pair.version} proved itself")


def _child_exited(event: facts.ChildExited) -> Line:
    how = f"by signal {event.signal}" if event.signal is not None else f"with code {event.code}"
    level = INFO if event.expected else WARNING
    return level, f"{event.app}: child ended {how}{'' if event.expected else ', which nobody asked for'}"


def _condition(event: facts.ConditionChanged) -> Line:
    it = event.condition
    whose = f"{event.app}: " if event.app else ""
    if it.status == "False" and not it.reason:
        return INFO, f"{whose}condition {it.type} is over"
    return (
        INFO,
        f"{whose}condition {it.type} {it.status}: {it.reason}{f': {it.message}' if it.message else ''}",
    )


def _job_ended(event: job_events.JobEnded) -> Line | None:
    run = event.run
    if event.earlier:
        return None
    text = f"{event.app}: run {run.id} ({run.cause}) {run.result} after {span(event.seconds)}"
    level = INFO if run.result in (JobResult.SUCCEEDED, JobResult.STOPPED) else WARNING
    return level, text + _because(run.failure)


def _job_passed(event: job_events.JobPassed) -> Line:
    times = "once" if event.count == 1 else f"{event.count} times"
    return WARNING, f"{event.app}: {event.result} {times}, last due at {rfc3339(event.last)}"


def _exec_started(event: facts.ExecStarted) -> Line:
    with_them = f" with {event.arguments} arguments" if event.arguments else ""
    return INFO, f"{event.app}: {event.id}: {event.by} runs {event.program}{with_them}"


def _pause(event: facts.PauseChanged) -> Line:
    by = f" by {event.by}" if event.by else ""
    if event.message is None:
        return INFO, f"updates resumed{by}"
    return WARNING, f"updates paused{by}: {event.message}"


_TELLERS: dict[type[facts.Event], Callable[[Any], Line | None]] = {
    facts.TriggerHeard: _trigger,
    facts.PollScheduled: lambda e: (DEBUG, f"next poll at {rfc3339(e.due)}: {e.reason}"),
    facts.PushMissed: _missed,
    facts.SyncResolved: lambda e: (DEBUG, f"the commit is {e.commit}"),
    facts.SyncFinished: _sync_finished,
    facts.AppWanted: lambda e: (DEBUG, f"{e.app}: wanted is version {e.wanted.version}: {e.reason}"),
    facts.AppRemoved: lambda e: (INFO, f"{e.app}: removed"),
    facts.RunStarted: _run_started,
    facts.StepStarted: lambda e: (DEBUG, f"{e.app}: step {e.step} begins, attempt {e.attempt}"),
    facts.StepFinished: _step_finished,
    facts.RunFinished: _run_finished,
    facts.PairCurrent: _current,
    facts.PairGood: _good,
    facts.AppStateChanged: lambda e: (DEBUG, f"{e.app}: {e.state}"),
    facts.ChildStarted: lambda e: (INFO, f"{e.app}: child {e.child} runs with pid {e.pid}"),
    facts.ChildExited: _child_exited,
    facts.ChildRestarting: lambda e: (WARNING, f"{e.app}: starts again in {span(e.delay)}: {e.reason}"),
    facts.AppFailed: lambda e: (_level(e.failure), f"{e.app}{_because(e.failure)}"),
    facts.GateChanged: lambda e: (DEBUG, f"{e.app}: gate {e.state}"),
    facts.ConditionChanged: _condition,
    facts.PauseChanged: _pause,
    job_events.JobStarted: lambda e: (INFO, f"{e.app}: run {e.run} ({e.cause}) runs with pid {e.pid}"),
    job_events.JobEnded: _job_ended,
    job_events.JobPassed: _job_passed,
    facts.ExecStarted: _exec_started,
    facts.ExecEnded: lambda e: (INFO, f"{e.app}: {e.id}: {e.program} {e.result} after {span(e.seconds)}"),
}
