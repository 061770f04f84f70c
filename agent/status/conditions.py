"""The one vocabulary of conditions and reasons, for status, events, metrics and people.

A condition is a standing statement about the agent or an app (`agent.domain.model.Condition`): a type
from `TYPES`, a status, a reason from `REASONS`. A reason is also what a `Failure` carries, wherever it
is raised: other packages write it as a plain CamelCase word, and a test holds every such word to this
list. Metric labels use `known_reason`, so that a word from elsewhere never makes a new time series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Polarity(StrEnum):
    """Which status of a condition is the healthy one."""

    NORMAL = "normal"  # True is well
    ABNORMAL = "abnormal"  # True is a problem, or at least unusual
    NEUTRAL = "neutral"  # neither


@dataclass(frozen=True, slots=True)
class ConditionType:
    """One type. `scope` is "agent" or "app"."""

    name: str
    scope: str
    polarity: Polarity
    sentence: str


# Of the agent.
SOURCE_REACHABLE = "SourceReachable"
STATE_VALID = "StateValid"
PAUSED = "Paused"
JOURNAL_LOST = "JournalLost"
WEBHOOK_SILENT = "WebhookSilent"
# Of an app.
PROGRESSING = "Progressing"
AVAILABLE = "Available"
HEALTHY = "Healthy"
DEGRADED = "Degraded"
DIVERGED = "Diverged"
QUARANTINED = "Quarantined"
ENVIRONMENT_FAILING = "EnvironmentFailing"
SOCKET_MODE = "SocketMode"
CRASH_LOOPING = "CrashLooping"
WAITING = "Waiting"

_TYPES = (
    ConditionType(SOURCE_REACHABLE, "agent", Polarity.NORMAL, "The state repository answers."),
    ConditionType(
        STATE_VALID, "agent", Polarity.NORMAL, "The newest commit holds a state this host can read."
    ),
    ConditionType(PAUSED, "agent", Polarity.ABNORMAL, "An operator wants no runs to start."),
    ConditionType(JOURNAL_LOST, "agent", Polarity.ABNORMAL, "The journal was unreadable and begun anew."),
    ConditionType(WEBHOOK_SILENT, "agent", Polarity.ABNORMAL, "Polling found what no webhook announced."),
    ConditionType(PROGRESSING, "app", Polarity.NEUTRAL, "A run is under way."),
    ConditionType(AVAILABLE, "app", Polarity.NORMAL, "Clients are served by the app itself."),
    ConditionType(HEALTHY, "app", Polarity.NORMAL, "The probes of what serves succeed."),
    ConditionType(DEGRADED, "app", Polarity.ABNORMAL, "What serves is not what is wanted."),
    ConditionType(
        DIVERGED, "app", Polarity.ABNORMAL, "An operator put another version in place of the wanted."
    ),
    ConditionType(
        QUARANTINED, "app", Polarity.ABNORMAL, "The wanted specification failed; it is not tried again."
    ),
    ConditionType(
        ENVIRONMENT_FAILING, "app", Polarity.ABNORMAL, "The last good version fails in the same way now."
    ),
    ConditionType(SOCKET_MODE, "app", Polarity.NEUTRAL, "How the app gets its listening socket."),
    ConditionType(CRASH_LOOPING, "app", Polarity.ABNORMAL, "The child ends by itself again and again."),
    ConditionType(WAITING, "app", Polarity.NEUTRAL, "Something outside must change before the next attempt."),
)
TYPES: Mapping[str, ConditionType] = MappingProxyType({t.name: t for t in _TYPES})


class Area(StrEnum):
    """Where a reason belongs."""

    SOURCE = "source"  # reaching the state repository
    STATE = "state"  # reading what it says
    ARTIFACT = "artifact"
    DEPLOY = "deploy"
    PROCESS = "process"
    TRAFFIC = "traffic"
    HOST = "host"
    STANDING = "standing"  # reasons of conditions that are no failures


OTHER = "Other"
"""Stands in metric labels for every reason that is not in the vocabulary."""

_REASONS: dict[Area, dict[str, str]] = {
    Area.SOURCE: {
        "GitUnavailable": "The Git server does not answer, or answers with an error.",
        "GitTimeout": "The Git server did not finish in time.",
        "GitAuth": "The Git server wants other credentials.",
        "GitProtocol": "The Git server answered something that is not Git.",
        "RefNotFound": "The followed branch, tag or commit does not exist.",
    },
    Area.STATE: {
        "StateInvalid": "The state has mistakes; each is named with its line.",
        "StateMissing": "There is no state file where one is expected.",
        "PruneRefused": "The state names no app any more; that has to be said twice.",
    },
    Area.ARTIFACT: {
        "ArtifactNotFound": "The artifact's address names nothing.",
        "ArtifactUnavailable": "The artifact's server does not answer, or answers with an error.",
        "ChecksumMismatch": "The bytes are not those that were promised.",
        "ArchiveInvalid": "The archive is damaged or of an unknown kind.",
        "ArchiveRefused": "The archive holds what must not be unpacked.",
    },
    Area.DEPLOY: {
        "StepTimeout": "A step did not end in time.",
        "CheckFailed": "The check command refused the rendered files.",
        "TaskFailed": "A task's command failed.",
        "MigrationFailed": "A migration failed.",
        "CommandLater": "A command asked to be tried again later (exit code 75).",
        "CommandTimeout": "A command did not end in time.",
        "Superseded": "A newer commit took its place.",
        "Interrupted": "The agent ended in the middle of it.",
    },
    Area.PROCESS: {
        "SpawnFailed": "The program could not be started.",
        "ProbeFailed": "The app did not become healthy, or did not stay so.",
        "ExitedEarly": "The program ended before it was healthy.",
        "CrashLoop": "The program ended by itself too often.",
        "HookFailed": "A hook's command failed.",
        "UserNotAllowed": "The agent's settings do not let apps run as this user.",
        "KeeperLost": "The keeper process is gone.",
    },
    Area.TRAFFIC: {
        "PortTaken": "Another program listens on the port.",
    },
    Area.HOST: {
        "DiskFull": "The disk is full.",
        "PermissionDenied": "The operating system refused it.",
        "OsError": "The operating system reported an error.",
    },
    Area.STANDING: {
        "Answered": "The last request was answered.",
        "Valid": "The state was read without a mistake.",
        "ByOperator": "An operator asked for it.",
        "RunActive": "A run is under way.",
        "Idle": "No run is under way.",
        "Serving": "The app answers.",
        "NotServing": "The app does not answer its clients.",
        "RolledBack": "The last good version is back in place.",
        "InProbation": "The version serves and is being watched.",
        "Proven": "The version has proved itself.",
        "MissedPush": "A commit came without a webhook.",
    },
}
REASONS: Mapping[str, str] = MappingProxyType(
    {word: sentence for words in _REASONS.values() for word, sentence in words.items()}
)
_AREAS: Mapping[str, Area] = MappingProxyType(
    {word: area for area, words in _REASONS.items() for word in words}
)


def known_reason(word: str) -> str:
    """`word` when the vocabulary has it, else `OTHER`: metric labels stay few."""
    return word if word in REASONS else OTHER


def area_of(word: str) -> Area | None:
    """Where a reason belongs; None for a word from elsewhere."""
    return _AREAS.get(word)


def is_well(condition: str, status: str) -> bool | None:
    """Whether this status of this type of condition is good news; None when it is neither, or unknown."""
    kind = TYPES.get(condition)
    if kind is None or kind.polarity is Polarity.NEUTRAL or status == "Unknown":
        return None
    return (status == "True") == (kind.polarity is Polarity.NORMAL)
