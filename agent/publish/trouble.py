"""Why something was not packed or published."""

from __future__ import annotations

from agent.domain.errors import Failure, Transient


class Trouble(Exception):
    """One sentence for people.

    Args:
        message: what is wrong.
        remedy: what to do about it, or "".
        passing: the same may work later by itself.
        wait: seconds after which the other side asked to be tried again.
    """

    def __init__(
        self, message: str, remedy: str = "", *, passing: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.passing = passing
        self.wait = wait

    @classmethod
    def of(cls, failure: Failure) -> Trouble:
        """The same of what the agent's own parts raise."""
        info = failure.info
        message = f"{info.where}: {info.message}" if info.where else info.message
        return cls(message, info.remedy, passing=isinstance(failure, Transient), wait=failure.retry_after)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.remedy})" if self.remedy else message
