"""What is told to others, before it has the shape of any forge or chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec


class State(StrEnum):
    """How a commit fares on the hosts of one label set."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"  # a newer commit came first


class CommitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A status for a commit (hex). `context` is the same for all hosts with the same labels."""

    commit: str
    context: str
    state: State
    description: str


class NoticeKind(StrEnum):
    """What a notice is about."""

    DEPLOYED = "deployed"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    RECOVERED = "recovered"
    PAUSED = "paused"
    RESUMED = "resumed"


GRAVE = (NoticeKind.FAILED, NoticeKind.ROLLED_BACK)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something for people to read. `app` is "" when it is about the state itself or the agent.

    `serving` is the version that serves now, `step` where it failed, `reason` a word of the vocabulary,
    `at` RFC 3339. What is not known is "".
    """

    kind: NoticeKind
    host: str
    labels: Mapping[str, str]
    app: str = ""
    version: str = ""
    serving: str = ""
    commit: str = ""
    step: str = ""
    reason: str = ""
    message: str = ""
    remedy: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """Something to deliver, kept until it is.

    `subject` is what it is about: a newer letter about the same replaces it, unless this one is `grave` and
    the newer is not. `mark` says what it says, so that nothing is told twice. `body` is JSON.
    """

    id: int
    channel: str
    subject: str
    grave: bool
    mark: str
    body: bytes
    created: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a forge or a chat. `content` is its JSON. Never logged: it may hold secrets."""

    url: str
    headers: Mapping[str, str]
    content: Mapping[str, Any]


class Channel(Protocol):
    """A forge or a chat."""

    @property
    def name(self) -> str:
        """Its name, in the journal, the log and metrics."""

    def call(self, letter: Letter) -> Call:
        """The request that delivers a letter; reads secrets. Raises Failure when it cannot be made."""

    def accepted(self, status: int, answer: str) -> bool:
        """Whether this answer (its first characters) means that it was delivered."""
