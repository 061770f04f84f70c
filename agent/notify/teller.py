"""From facts to letters: what the forge and the chats are told, and what they are not told twice.

A commit's status follows its sync: *pending* when a run begins, then the sync's last word. A notice is about
an app (or "" for the state itself): a failure once, and the recovery from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from agent.domain import events as facts
from agent.domain import job_events
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.job import JobResult
from agent.domain.model import Pair, RunResult, StepResult, SyncResult
from agent.kit.clock import rfc3339
from agent.kit.mask import secrets
from agent.notify.channels import labels_text
from agent.notify.chat import Chat
from agent.notify.letter import GRAVE, CommitStatus, Notice, NoticeKind, State
from agent.notify.outbox import Outbox
from agent.notify.statuses import CHANNEL, DESCRIPTION_MAX

T = TypeVar("T")

MEMORY = 200  # syncs and runs
MESSAGE_MAX = 1000  # characters


@dataclass(slots=True)
class _Run:
    """What is known of a run."""

    sync: str
    app: str
    step: str = ""  # that failed


class Teller:
    """Listens to the bus and leaves letters.

    Args:
        bus: where facts come from.
        outbox: where letters go.
        host: name of this host.
        labels: its labels; the context of commit statuses is made of them.
        statuses: whether the forge is told.
        chats: who is told of what.
    """

    def __init__(
        self,
        bus: facts.Bus,
        outbox: Outbox,
        *,
        host: str,
        labels: Mapping[str, str],
        statuses: bool,
        chats: Sequence[Chat],
    ) -> None:
        self._outbox = outbox
        self._host = host
        self._labels = dict(labels)
        self._statuses = statuses
        self._chats = chats
        self.context = f"emptybox/{labels_text(labels)}".rstrip("/")
        self._commits: OrderedDict[str, str] = OrderedDict()  # by sync
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._why: OrderedDict[str, str] = OrderedDict()  # by sync: which app failed where
        self._wanted: dict[str, Pair] = {}
        self._serving: dict[str, str] = {}
        self._paused: str | None = None
        self._frozen = ""
        self._handlers = {
            facts.SyncResolved: self._resolved,
            facts.AppWanted: self._app_wanted,
            facts.PairCurrent: self._current,
            facts.RunStarted: self._run_started,
            facts.StepFinished: self._step_finished,
            facts.RunFinished: self._run_finished,
            facts.SyncFinished: self._sync_finished,
            facts.PauseChanged: self._pause,
            facts.ConditionChanged: self._condition,
            facts.AppRemoved: self._removed,
            job_events.JobEnded: self._job_ended,
        }
        self.unsubscribe = bus.subscribe(self.hear)

    def hear(self, event: facts.Event) -> None:
        """Take one fact in."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)  # type: ignore[operator]

    # -- what is going on --------------------------------------------------------------------------

    def _resolved(self, event: facts.SyncResolved) -> None:
        _keep(self._commits, event.sync, event.commit)
        self._recovered("", event, commit=event.commit)

    def _app_wanted(self, event: facts.AppWanted) -> None:
        self._wanted[event.app] = event.wanted

    def _current(self, event: facts.PairCurrent) -> None:
        self._serving[event.app] = event.pair.version if event.pair is not None else ""

    def _removed(self, event: facts.AppRemoved) -> None:
        self._wanted.pop(event.app, None)
        self._serving.pop(event.app, None)

    def _pause(self, event: facts.PauseChanged) -> None:
        if event.message == self._paused:
            return
        self._paused = event.message
        kind = NoticeKind.PAUSED if event.message is not None else NoticeKind.RESUMED
        by = f" ({event.by})" if event.by else ""
        self._notice(kind, "", event, subject="pause", message=f"{event.message or 'updates go on'}{by}")

    def _condition(self, event: facts.ConditionChanged) -> None:
        if not event.app and event.condition.type == "Frozen":
            self._frozen = event.condition.message if event.condition.status == "True" else ""

    # -- runs ---------------------------------------------------------------------------------------

    def _run_started(self, event: facts.RunStarted) -> None:
        _keep(self._runs, event.run, _Run(event.sync, event.app))
        self._status(self._commits.get(event.sync, ""), State.PENDING, f"{event.app}: {event.reason}")

    def _step_finished(self, event: facts.StepFinished) -> None:
        run = self._runs.get(event.run)
        if run is not None and event.result is StepResult.FAILED and not run.step:
            run.step = event.step

    def _run_finished(self, event: facts.RunFinished) -> None:
        run = self._runs.get(event.run) or _Run(event.sync, event.app)
        commit = self._commits.get(event.sync, "")
        if event.result is RunResult.SUCCEEDED:
            self._recovered(event.app, event, commit=commit)
            self._notice(NoticeKind.DEPLOYED, event.app, event, commit=commit, only_if_well=True)
        if event.failure is None or event.result not in (
            RunResult.FAILED,
            RunResult.ROLLED_BACK,
            RunResult.LATER,
        ):
            return
        back = event.result is RunResult.ROLLED_BACK
        _keep(self._why, event.sync, self._told(event.app, run.step, event.failure, back=back))
        if event.result is not RunResult.LATER or event.failure.kind is FailureKind.OPERATOR:
            kind = NoticeKind.ROLLED_BACK if back else NoticeKind.FAILED
            self._notice(kind, event.app, event, commit=commit, step=run.step, failure=event.failure)

    def _told(self, app: str, step: str, failure: FailureInfo, *, back: bool) -> str:
        serving = self._serving.get(app, "")
        head = f"{app}: rolled back to {serving}: " if back and serving else f"{app}: "
        at = f"{step}: " if step else ""
        return f"{head}{at}{failure.reason}: {failure.message}"

    def _job_ended(self, event: job_events.JobEnded) -> None:
        """A job that fails is told once, and when it succeeds again."""
        subject, run = f"job {event.app}", event.run
        if event.earlier or run.result is JobResult.STOPPED:
            return
        if run.failure is None:
            self._notice(NoticeKind.RECOVERED, event.app, event, subject=subject, only_if_ill=True)
        else:
            about, why = run.commit, run.failure
            self._notice(NoticeKind.FAILED, event.app, event, subject=subject, commit=about, failure=why)

    # -- syncs --------------------------------------------------------------------------------------

    def _sync_finished(self, event: facts.SyncFinished) -> None:
        commit = event.commit
        match event.result:
            case SyncResult.SUCCEEDED:
                self._status(commit, State.SUCCESS, self._versions() or "done")
            case SyncResult.UNCHANGED if self._paused is not None:
                self._status(commit, State.PENDING, f"updates are paused: {self._paused}")
            case SyncResult.UNCHANGED if self._frozen and self._is_news(commit):
                self._status(commit, State.PENDING, self._frozen)
            case SyncResult.UNCHANGED if self._is_news(commit):
                self._status(commit, State.SUCCESS, self._versions() or "nothing to do here")
            case SyncResult.PROBATION:
                self._status(commit, State.PENDING, f"{self._versions()}, on probation")
            case SyncResult.SUPERSEDED:
                self._status(commit, State.CANCELLED, "superseded by a newer commit")
            case SyncResult.FAILED | SyncResult.ROLLED_BACK if event.failure is not None:
                why = self._why.get(event.sync)
                told = f"{event.failure.reason}: {event.failure.message}"
                self._status(commit, State.FAILURE, why or told)
                if why is None and event.failure.kind is not FailureKind.TRANSIENT:
                    self._notice(NoticeKind.FAILED, "", event, commit=commit, failure=event.failure)

    def _versions(self) -> str:
        told = ", ".join(f"{app} {version}" for app, version in self._serving.items() if version)
        return f"{told} serves" if told else ""

    def _is_news(self, commit: str) -> bool:
        """Whether nothing was told of a commit, or no more than that it waits."""
        last = self._outbox.last(CHANNEL, f"{commit} {self.context}")
        return last is None or last.startswith(State.PENDING)

    # -- letters ------------------------------------------------------------------------------------

    def _status(self, commit: str, state: State, description: str) -> None:
        if not self._statuses or not commit:
            return
        text = " ".join(secrets.text(description).split())
        if len(text) > DESCRIPTION_MAX:
            text = text[: DESCRIPTION_MAX - 1] + "…"
        status = CommitStatus(commit=commit, context=self.context, state=state, description=text)
        self._outbox.put(
            CHANNEL,
            f"{commit} {self.context}",
            f"{state} {text}",
            msgspec.json.encode(status),
            grave=state is State.FAILURE,
        )

    def _recovered(self, app: str, event: facts.Event, *, commit: str) -> None:
        """Tell who was told of a failure that it is over."""
        self._notice(NoticeKind.RECOVERED, app, event, commit=commit, only_if_ill=True)

    def _notice(
        self,
        kind: NoticeKind,
        app: str,
        event: facts.Event,
        *,
        subject: str = "",
        commit: str = "",
        step: str = "",
        message: str = "",
        failure: FailureInfo | None = None,
        only_if_ill: bool = False,
        only_if_well: bool = False,
    ) -> None:
        wanted = self._wanted.get(app)
        notice = Notice(
            kind=kind,
            host=self._host,
            labels=self._labels,
            app=app,
            version=wanted.version if wanted is not None else "",
            serving=self._serving.get(app, ""),
            commit=commit,
            step=step,
            reason=failure.reason if failure is not None else "",
            message=failure.message[:MESSAGE_MAX] if failure is not None else message[:MESSAGE_MAX],
            remedy=failure.remedy[:MESSAGE_MAX] if failure is not None else "",
            at=rfc3339(event.at),
        )
        masked = secrets.data(msgspec.to_builtins(notice))
        subject = subject or f"app {app}"
        mark = f"{kind} {notice.reason or notice.message} {notice.version}"
        for chat in self._chats:
            ill = (self._outbox.last(chat.name, subject) or "").startswith(GRAVE)
            if kind not in chat.on or (only_if_ill and not ill) or (only_if_well and ill):
                continue
            if only_if_well and (self._outbox.last(chat.name, subject) or "").startswith(
                f"{NoticeKind.RECOVERED}  {notice.version}"
            ):
                continue  # the same run was told as the recovery
            self._outbox.put(chat.name, subject, mark, msgspec.json.encode(masked), grave=kind in GRAVE)


def _keep(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory[key] = value
    while len(memory) > MEMORY:
        memory.popitem(last=False)
