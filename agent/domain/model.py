"""Words shared by everyone: triggers, desired state, pairs, plans and results."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from agent.domain.errors import FailureInfo
from agent.domain.freeze import FreezeSpec
from agent.domain.spec import AppSpec


def new_id(kind: str) -> str:
    """A short id that sorts by time: kind, milliseconds since the epoch in base 32, random tail."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    value, text = time.time_ns() // 1_000_000, ""
    for _ in range(9):
        value, digit = divmod(value, 32)
        text = alphabet[digit] + text
    return f"{kind}-{text}{os.urandom(2).hex()}"


class TriggerKind(StrEnum):
    """Who hinted that something may have changed."""

    PUSH = "push"
    POLL = "poll"
    ARTIFACT = "artifact"  # a registry or a forge tells that something was published
    OPERATOR = "operator"
    START = "start"
    SCHEDULE = "schedule"  # a freeze ended
    RETRY = "retry"  # the agent's own: a transient failure's backoff is over


@dataclass(frozen=True, slots=True)
class Trigger:
    """A hint, never the truth. `commit` is what a push announced (hex) or None."""

    kind: TriggerKind
    commit: str | None = None
    detail: str = ""  # forge and delivery id, or the operator's words
    override: str = ""  # why an operator goes through a freeze
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class DesiredState:
    """One commit of the state repository, merged for this host, validated.

    `apps` keeps the file's order. `tree` is the exported directory it was read from; `signer` who signed
    the commit or its tag, with the fingerprint of the key, "" when no signature is required. `refused` are
    apps that are wanted, but cannot be read for now: a secret is not to be had.
    """

    commit: str
    tree: str
    apps: Mapping[str, AppSpec]
    warnings: tuple[str, ...] = ()
    signer: str = ""
    freezes: tuple[FreezeSpec, ...] = ()
    refused: Mapping[str, FailureInfo] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Pair:
    """What serves or served: a release and a config generation, and where they came from.

    `spec` is the spec digest, `release` the store's tree id ("" when the app has no artifact),
    `generation` the files digest ("" when it has no files), `since` seconds since the epoch.
    """

    spec: str
    release: str
    generation: str
    version: str
    commit: str
    digest: str  # the artifact's own digest, "sha256:…"
    since: float = 0.0
    signer: str = ""  # of the commit, see DesiredState
    artifact_signer: str = ""  # of the artifact, where a signature was required


class SyncResult(StrEnum):
    """How a sync ended."""

    RUNNING = "running"
    UNCHANGED = "unchanged"
    PROBATION = "probation"  # live and watched; becomes succeeded or rolled-back
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    SUPERSEDED = "superseded"
    INTERRUPTED = "interrupted"


class RunResult(StrEnum):
    """How one app's run ended."""

    RUNNING = "running"
    PROBATION = "probation"  # switched and watched; becomes succeeded or rolled-back
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # before the switch: nothing was touched
    ROLLED_BACK = "rolled-back"  # after the switch or in a canary: the last good pair serves again
    CANCELLED = "cancelled"  # by a newer commit, before it touched anything, or in a canary
    SUPERSEDED = "superseded"  # on probation when a newer release took its place
    INTERRUPTED = "interrupted"  # the agent died in it
    PREPARED = "prepared"  # in a freeze: all is ready for the switch, which waits for its end
    LATER = "later"  # a command asked for it (exit code 75), or a transient failure outlived its retries


class StepResult(StrEnum):
    """How one step ended."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNDONE = "undone"


class AppState(StrEnum):
    """One word for an app, in this order of telling."""

    EMPTY = "empty"  # nothing was ever started
    UPDATING = "updating"
    CANARY = "canary"  # updating: a new version serves a share of the clients
    RUNNING = "running"
    PROBATION = "probation"  # serving, being watched
    DEGRADED = "degraded"  # serving, but not what is wanted
    MAINTENANCE = "maintenance"  # the page or a hold answers
    FAILED = "failed"  # nothing serves
    STOPPED = "stopped"
    PLACED = "placed"  # no process is wanted; the files are there
    READY = "ready"  # a job between two runs
    WORKING = "working"  # a job, a run of which is under way


@dataclass(frozen=True, slots=True)
class Instance:
    """One child of an app, for people. `state` is serving, unwell, standby, starting or leaving.

    `said` is what it says of itself (STATUS of sd_notify(3)).
    """

    number: int
    child: str
    pid: int
    version: str
    state: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan: a kind the catalogue knows, why it is needed, what it waits for."""

    name: str
    kind: str
    reason: str
    needs: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps from what is to what is wanted, for one app."""

    app: str
    reason: str
    steps: tuple[PlannedStep, ...]

    @property
    def repairs(self) -> bool:
        """Whether what serves is put right, or its data are, and nothing else is wanted."""
        return any(step.kind in ("repair", "contract") for step in self.steps)

    @property
    def contracts(self) -> bool:
        """Whether it is about migrations after probation."""
        return any(step.kind == "contract" for step in self.steps)


@dataclass(frozen=True, slots=True)
class NoChange:
    """What is, is what is wanted; or why nothing is done."""

    app: str
    reason: str


class ConditionStatus(StrEnum):
    """The status of a condition, in the words of the Kubernetes API conventions."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """A standing statement. Types and reasons are listed in `agent.status.conditions`."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    since: float = 0.0
