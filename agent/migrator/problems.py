"""What can go wrong in a migration, and what the agent makes of it."""

from __future__ import annotations

PERMANENT, TRANSIENT, OPERATOR = "permanent", "transient", "operator"


class Problem(Exception):
    """A migration that cannot go on.

    Args:
        outcome: PERMANENT, TRANSIENT or OPERATOR, as `agent.domain.errors` has them.
        reason: CamelCase word of the vocabulary.
        message: one sentence for people.
        remedy: what to do about it.
        unsure: something may be half done that no transaction takes back.
    """

    def __init__(
        self, outcome: str, reason: str, message: str, *, remedy: str = "", unsure: bool = False
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.unsure = unsure


def failed(message: str, *, unsure: bool = False) -> Problem:
    """The migration itself is wrong, or the data are not as it expects."""
    remedy = "mend it and push again; see its last lines"
    return Problem(PERMANENT, "MigrationFailed", message, remedy=remedy, unsure=unsure)


def unavailable(message: str, *, unsure: bool = False) -> Problem:
    """The database cannot be reached, or is busy: the same may work later."""
    remedy = "it is tried again by itself; the ledger says then what was done"
    return Problem(TRANSIENT, "DatabaseUnavailable", message, remedy=remedy, unsure=unsure)


def unusable(message: str, remedy: str) -> Problem:
    """A person has to do something about the database."""
    return Problem(OPERATOR, "DatabaseUnusable", message, remedy=remedy)
