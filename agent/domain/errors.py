"""Failures that carry their consequence, so that nobody parses messages.

Every expected failure in emptybox is a `Failure` of one of three kinds:

- transient: the same thing may work later by itself (registry 503, timeout): back off, retry;
- permanent: this specification will never work (bad checksum, failing probe): quarantine, go back;
- operator: a human has to act (permission, disk full, policy): wait, say what to do, retry when it changes.

`LATER` is the exit code with which a program asks to be tried again (sysexits.h, EX_TEMPFAIL).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LATER = 75


class FailureKind(StrEnum):
    """What follows from a failure."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """A failure as data: what /status, history and metrics show.

    `reason` is CamelCase and from a small vocabulary (ChecksumMismatch, ProbeFailed, DiskFull);
    `where` is a file:line, a field path, a URL without credentials or a step name, or "";
    `remedy` says what a person can do, or "". `log` holds the last output lines that explain it.
    """

    kind: FailureKind
    reason: str
    message: str
    where: str = ""
    remedy: str = ""
    log: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class Failure(Exception):
    """An expected failure. Raise one of the three subclasses, never this class itself.

    Args:
        reason: CamelCase word of the vocabulary, used in conditions, events and metric labels.
        message: one sentence for people: what is wrong.
        where: where it is wrong (file:line, field path, URL without credentials).
        remedy: what to do about it.
        log: last output lines of the program that failed.
        retry_after: seconds after which the other side asked to be tried again, or None.
    """

    kind: FailureKind

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        where: str = "",
        remedy: str = "",
        log: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.info = FailureInfo(self.kind, reason, message, where, remedy, log)
        self.retry_after = retry_after

    @property
    def reason(self) -> str:
        """The CamelCase reason."""
        return self.info.reason

    def __str__(self) -> str:
        return str(self.info)


class Transient(Failure):
    """May work later by itself."""

    kind = FailureKind.TRANSIENT


class Permanent(Failure):
    """Will not work with this specification."""

    kind = FailureKind.PERMANENT


class OperatorNeeded(Failure):
    """Needs a human: a permission, a full disk, a policy."""

    kind = FailureKind.OPERATOR
