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
WEBHOOKS_WORKING = "WebhooksWorking"
NOTICES_DELIVERED = "NoticesDelivered"
FROZEN = "Frozen"
JOURNAL_LOST = "JournalLost"
JOURNAL_WRITABLE = "JournalWritable"
DISK_ANSWERS = "DiskAnswers"
AGENT_REPLACED = "AgentReplaced"
# Of an app.
PROGRESSING = "Progressing"
AVAILABLE = "Available"
HEALTHY = "Healthy"
DEGRADED = "Degraded"
DIVERGED = "Diverged"
QUARANTINED = "Quarantined"
ENVIRONMENT_FAILING = "EnvironmentFailing"
CRASH_LOOPING = "CrashLooping"
SOCKET_MODE = "SocketMode"
BACKLOG_LIMITED = "BacklogLimited"
MEMORY_SHORT = "MemoryShort"
TAG_MOVED = "TagMoved"
GRACE_SHORT = "GraceShort"
DRIFTED = "Drifted"
STRAY_PROCESSES = "StrayProcesses"
JOB_FAILING = "JobFailing"
ROLLBACK_BLOCKED = "RollbackBlocked"
ISOLATED = "Isolated"

_TYPES = (
    ConditionType(SOURCE_REACHABLE, "agent", Polarity.NORMAL, "The state repository answers."),
    ConditionType(
        STATE_VALID, "agent", Polarity.NORMAL, "The newest commit holds a state this host can read."
    ),
    ConditionType(WEBHOOKS_WORKING, "agent", Polarity.NORMAL, "Webhooks announce what is pushed."),
    ConditionType(FROZEN, "agent", Polarity.ABNORMAL, "A freeze window of the state: nothing is switched."),
    ConditionType(NOTICES_DELIVERED, "agent", Polarity.NORMAL, "The forge and the chats take what is told."),
    ConditionType(PAUSED, "agent", Polarity.ABNORMAL, "An operator wants no runs to start."),
    ConditionType(
        JOURNAL_LOST, "agent", Polarity.ABNORMAL, "The journal could not be used and was begun anew."
    ),
    ConditionType(JOURNAL_WRITABLE, "agent", Polarity.NORMAL, "What happens can be recorded."),
    ConditionType(DISK_ANSWERS, "agent", Polarity.NORMAL, "The data directory's disk answers."),
    ConditionType(
        AGENT_REPLACED, "agent", Polarity.ABNORMAL, "An agent died or hung, and its keeper started another."
    ),
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
    ConditionType(CRASH_LOOPING, "app", Polarity.ABNORMAL, "The child ends by itself again and again."),
    ConditionType(
        MEMORY_SHORT,
        "app",
        Polarity.ABNORMAL,
        "The last swap was a restart: no memory for two versions at once.",
    ),
    ConditionType(TAG_MOVED, "app", Polarity.ABNORMAL, "The image's tag names another digest by now."),
    ConditionType(
        GRACE_SHORT, "app", Polarity.ABNORMAL, "Stopping in order may take longer than the platform allows."
    ),
    ConditionType(ISOLATED, "app", Polarity.NORMAL, "All of the app's isolation is in force."),
    ConditionType(DRIFTED, "app", Polarity.ABNORMAL, "Managed files or links were changed on this host."),
    ConditionType(JOB_FAILING, "app", Polarity.ABNORMAL, "The job's last run did not succeed."),
    ConditionType(
        ROLLBACK_BLOCKED, "app", Polarity.ABNORMAL, "An older version cannot run on the data as they are."
    ),
    ConditionType(
        STRAY_PROCESSES, "app", Polarity.ABNORMAL, "Processes that the app's programs left behind are there."
    ),
    ConditionType(SOCKET_MODE, "app", Polarity.NEUTRAL, "How the app gets its listening socket."),
    ConditionType(
        BACKLOG_LIMITED, "app", Polarity.ABNORMAL, "The host lets fewer clients wait at a port than wanted."
    ),
)
TYPES: Mapping[str, ConditionType] = MappingProxyType({t.name: t for t in _TYPES})


OTHER = "Other"
"""Stands in metric labels for every reason that is not in the vocabulary."""

_REASONS: dict[str, str] = {
    # reaching the state repository
    "GitUnavailable": "The Git server does not answer, or answers with an error.",
    "GitTimeout": "The Git server did not finish in time.",
    "GitAuth": "The Git server wants other credentials.",
    "GitTls": "The Git server's certificate is not accepted.",
    "HostKeyRefused": "The SSH server's host key is not one that is trusted.",
    "GitProtocol": "The Git server answered something that is not Git.",
    "GitRefused": "The Git server refuses.",
    "GitServerUnsupported": "The Git server lacks what is needed.",
    "RepositoryNotFound": "The Git server knows no such repository.",
    "RepositoryTooLarge": "The state repository is larger than it may be.",
    "RefNotFound": "The followed branch, tag or commit does not exist.",
    "RefInvalid": "The followed ref cannot be the name of one.",
    "CommitNotFound": "The Git server does not have the commit.",
    "PollFailed": "Looking at the state repository failed unexpectedly.",
    # reading what it says
    "StateInvalid": "The state has mistakes; each is named with its line.",
    "TreeRefused": "The repository holds what must not be written to disk.",
    "TreeTooLarge": "The repository's tree is larger than it may be.",
    "ExportFailed": "The state's files cannot be written.",
    "AppUnknown": "emptybox once is to look after an app that the state does not name.",
    "PruneRefused": "The state names no app any more; that has to be said twice.",
    "HistoryRewritten": "The last deployed commit is not behind the new one: a push by force.",
    "HistoryTooLong": "More commits came since the last deployed one than are looked through.",
    "SignatureMissing": "A commit or tag is not signed, and must be.",
    "SignatureRefused": "A commit or tag is signed by a key that is not trusted, or wrongly.",
    "SignersUnusable": "The file of trusted keys cannot be used.",
    # artifacts
    "ArtifactUnsigned": "A signature is asked for, and there is none where it should be.",
    "ArtifactSignatureRefused": "No signature of the artifact is right and by a trusted key.",
    "UrlInvalid": "The artifact's address is none.",
    "SchemeUnsupported": "Artifacts of this kind of address are not yet supported.",
    "ArtifactNotFound": "The artifact's address names nothing.",
    "ReleaseDamaged": "Files of a release were changed on this host, and cannot be fetched again now.",
    "ArtifactUnavailable": "The artifact's server does not answer, or answers with an error.",
    "ArtifactTimeout": "The artifact's server fell silent.",
    "ArtifactTruncated": "The artifact's server ended too early.",
    "ArtifactChanged": "The artifact was replaced while it was fetched.",
    "ArtifactDenied": "The artifact may not be read.",
    "ArtifactRefused": "The artifact's server refuses, or it is no file.",
    "ArtifactTooLarge": "The artifact is larger than it may be.",
    "ManifestBroken": "What the registry holds is malformed.",
    "ManifestUnsupported": "What the registry holds is of a kind that is not supported.",
    "PlatformMissing": "The image is not there for this host's platform.",
    "ProxyRefused": "The proxy of the environment does not let artifacts through.",
    "LoginsInvalid": "The file with logins for hosts cannot be read.",
    "RegistryAuthInvalid": "The file with logins for registries cannot be read.",
    "StorageCredentialsInvalid": "The file with credentials for a cloud's storage cannot be read.",
    "TagMoved": "The tag names something else than the digest that is wanted.",
    "CertificateRefused": "The artifact server's certificate is not trusted.",
    "RedirectRefused": "A redirect leads where it must not, or never ends.",
    "FileNotAllowed": "The file is not where file:// artifacts may come from.",
    "ChecksumMismatch": "The bytes are not those that were promised.",
    "ChecksumMissing": "The checksum file does not name the artifact.",
    "ChecksumAmbiguous": "The checksum file names the artifact more than once.",
    "ArchiveBroken": "The archive is damaged.",
    "ArchiveEmpty": "The archive holds nothing.",
    "ArchiveRefused": "The archive holds what must not be unpacked.",
    "ArchiveTooLarge": "The archive unpacks to more than it may.",
    "ArchiveUnsupported": "The archive is of a kind, or has an entry, that is not supported.",
    "DeliveryCancelled": "The delivery was cancelled.",
    # runs
    "NoRoomForTwo": "Old and new version do not fit into memory side by side.",
    "EndTooLong": "Stopping in order may take longer than what --grace-period says.",
    "RoomForTwo": "Old and new version fit into memory side by side.",
    "StepTimeout": "A step did not end in time.",
    "CheckFailed": "The check command refused the rendered files.",
    "TaskFailed": "A task's command failed.",
    "MigrationFailed": "A migration failed.",
    "MigrationEdited": "A file of a migration was changed after it had run.",
    "MigrationMissing": "A file of a migration that has run is not there any more.",
    "MigrationOutOfOrder": "A file of a migration was put before others that have run.",
    "MigrationsInvalid": "The directory with the files of a migration cannot be used.",
    "BaselineMissing": "The database holds something already, and nobody said which files made it.",
    "SchemaTooNew": "The data were changed so that this version cannot run on them.",
    "NoWayBack": "A migration cannot be taken back.",
    "DatabaseUnavailable": "The database does not answer, or is busy.",
    "DatabaseUnusable": "The database, or what its URL names, cannot be used as it is.",
    "DriverMissing": "The driver for this kind of database is not installed.",
    "ReloadFailed": "The child could not be told to read its files again.",
    "AfterFailed": "The command that follows the placing of files failed.",
    "PlaceNotAllowed": "The agent's settings do not let apps place files there.",
    "PlaceTaken": "Something that is not the agent's is where files are to be placed.",
    "PlaceThroughLink": "The way to a place leads through a link.",
    "Later": "A command asked to be tried again later (exit code 75).",
    "Interrupted": "The agent ended in the middle of it.",
    "OperatorRollback": "An operator went back to another version.",
    "OperatorAbort": "An operator ended the new version's canary.",
    "InternalError": "A defect of the agent; its log has the trace.",
    # programs
    "SpawnFailed": "The program could not be started.",
    "StartFailed": "The program could not be started.",
    "CommandNotFound": "There is no such program.",
    "CommandNotExecutable": "The file may not be executed.",
    "InterpreterMissing": "What the program needs to run is not there.",
    "WrongFormat": "The program is not for this machine.",
    "EnvironmentInvalid": "A variable cannot be handed to a program.",
    "DirectoryUnusable": "The program's user cannot enter its directory.",
    "SignalUnknown": "There is no such signal.",
    "ProcessStuck": "A process was killed and is still there.",
    "CanaryFailed": "The new version failed while it had a share of the clients.",
    "ProbeFailed": "The app did not become healthy, or did not stay so.",
    "ChildExited": "The program ended by itself.",
    "NeedNotServing": "An app that this one needs does not serve.",
    "WatchdogSilent": "The program gave no sign of life, and was ended.",
    "JobFailed": "A run of the job failed, with all its attempts.",
    "DeadlineExceeded": "A run of the job did not end in its time and was stopped.",
    "JobInterrupted": "A run of the job was cut short; how far it got is not known.",
    "JobStopped": "A run of the job was stopped, with the agent, with its app or by an operator.",
    "LimitExceeded": "The program was killed by a limit of its own.",
    "LimitsNotPossible": "What run.limits asks for cannot be had on this host.",
    "IsolationNotAllowed": "The state asks for less isolation than the agent's settings allow.",
    "IsolationNotPossible": "What run.isolation asks for cannot be had on this host.",
    "ContainerNotPossible": "The container could not be started on this host.",
    "BundleInvalid": "The release's config.json is not one of a container.",
    "CommandMissing": "Neither the state nor the release says what to run.",
    "IsolationLacking": "This host cannot do all of the default isolation.",
    "InForce": "All of it is in force.",
    "HookFailed": "A hook's command failed.",
    "UserUnknown": "There is no such user on this machine.",
    "UserNotAllowed": "The agent's settings do not let apps run as this user.",
    "UserNotPossible": "The agent lacks the right to start programs as this user.",
    "SecretMissing": "A secret is not there.",
    "SecretNotAllowed": "The agent's settings do not give this secret out.",
    "SecretUnusable": "What stands for a secret cannot be read as one.",
    "SecretProgramFailed": "The program that gives a secret out did not.",
    "KeeperLost": "The keeper process is gone.",
    "AgentDied": "The agent before this one ended by itself, or was killed.",
    "AgentHung": "The agent before this one did not answer, and its keeper killed it.",
    "AgentSteady": "This agent has lived for an hour.",
    "KeeperSilent": "The keeper process does not answer.",
    "NoResources": "The system lacks what a new process needs.",
    # ports
    "PortTaken": "Another program listens on the port.",
    "PortForbidden": "The agent lacks the right to listen on the port.",
    "PortUnusable": "The port cannot be listened on.",
    "PortNotBound": "The program does not listen on a port of its own.",
    "AdoptNotPossible": "The kernel or a sandbox does not let programs be adopted.",
    "NoPrivatePort": "No private port is to be had for a relayed program.",
    "AddressUnavailable": "This host has no such address.",
    "SocketUnusable": "The agent's Unix socket cannot be opened.",
    # the machine
    "DiskFull": "The disk is full.",
    "DiskSilent": "The disk does not answer.",
    "Answered": "It answers.",
    "DiskReadOnly": "The disk cannot be written to.",
    "StoreFailing": "The disk that holds the releases fails.",
    "DataInUse": "Another agent uses the data directory.",
    "DataNewer": "The data directory was written by a newer version.",
    "DataNotUsable": "The data directory cannot be used.",
    "JournalFailed": "The journal cannot be used.",
    "NoticesInvalid": "The settings of commit statuses or notices are wrong.",
    "PermissionDenied": "The operating system refused it.",
    "ResourcesShort": "The system lacks memory or file descriptors.",
    "SystemError": "The operating system reported an error.",
    # conditions that are no failures
    "PushHeard": "A webhook announced a push.",
    "PushMissed": "Polling found a commit that no webhook announced.",
    "Delivered": "The last notices were taken.",
    "NoticeFailed": "A forge or a chat did not take what it was told; it is tried again.",
    "FreezeWindow": "The state wants nothing to be switched now.",
    "FreezeEnded": "The freeze is over.",
    "Reachable": "The last look was answered.",
    "Valid": "The state was read without a mistake.",
    "Written": "The last word was recorded.",
    "Damaged": "What was there could not be read.",
    "Newer": "What was there was written by a newer version.",
    "Missing": "What should be there was not.",
    "ByOperator": "An operator asked for it.",
    "Running": "A run is under way.",
    "NothingToDo": "What is, is what is wanted, or nothing may be done.",
    "Serving": "The app answers.",
    "NotServing": "The app does not answer its clients.",
    "Probed": "The last probes succeeded.",
    "Proven": "The version has proved itself.",
    "AsWanted": "What serves is what is wanted.",
    "EarlierSpecification": "An earlier specification serves, because the newest does not work.",
    "OldPairHealthy": "The last good version is healthy.",
    "FilesChanged": "Managed files or links are not as they were written.",
    "LeftBehind": "A program has ended, and what it started has not.",
    "RepairsSpent": "They were put right and changed again more often than is repaired.",
    "BudgetSpent": "The child ended more often than it may be started again.",
    "JobSucceeded": "The last run of the job succeeded.",
    "Restarted": "The child runs again.",
    "SomaxconnTooLow": "The host's net.core.somaxconn is lower than what the agent asks for.",
    "Adopted": "The program binds its port by itself and gets the agent's socket instead.",
    "HandedOver": "The program is handed its listening socket.",
    "Relayed": "The program listens on a private port and the agent relays.",
    "OwnPort": "The program has its port by itself.",
}
REASONS: Mapping[str, str] = MappingProxyType(_REASONS)


def known_reason(word: str) -> str:
    """`word` when the vocabulary has it, else `OTHER`: metric labels stay few."""
    return word if word in REASONS else OTHER


def is_well(condition: str, status: str) -> bool | None:
    """Whether this status of this type of condition is good news; None when it is neither, or unknown."""
    kind = TYPES.get(condition)
    if kind is None or kind.polarity is Polarity.NEUTRAL or status == "Unknown":
        return None
    return (status == "True") == (kind.polarity is Polarity.NORMAL)
