"""What a sync wants of one app, and who waits for the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.deploy.settlement import Settlement
from agent.domain.errors import FailureInfo
from agent.domain.model import SyncResult
from agent.domain.spec import AppSpec


@dataclass(eq=False, slots=True)
class Wish:
    """One app's specification at a commit.

    `operator`: an operator asked, so a backoff is not waited for. `override`: why an operator goes through
    a freeze. `fallback`: an earlier
    specification, tried because nothing newer works. `rollback`: an operator's way back.
    `drifted`: what was changed on this host of the specification that serves, and has to be put right.
    `contract`: its migrations that had to wait for its probation's end.
    """

    spec: AppSpec
    commit: str
    settlement: Settlement
    operator: bool = False
    fallback: bool = False
    rollback: bool = False
    override: str = ""
    signer: str = ""  # of the commit, see DesiredState
    drifted: tuple[str, ...] = ()
    contract: bool = False
    also: list[Settlement] = field(default_factory=list)
    open: bool = True  # nothing was told yet to those who wait

    @property
    def newest(self) -> bool:
        """Whether it is what the state wants, and no way back or repair."""
        return not (self.rollback or self.fallback or self.drifted or self.contract)

    @property
    def sync(self) -> str:
        """Id of the sync that brought it."""
        return self.settlement.sync

    def settle(self, result: SyncResult, failure: FailureInfo | None = None) -> None:
        """Tell every sync that waits for this wish."""
        self.open = False
        for settlement in (self.settlement, *self.also):
            settlement.settle(self.spec.name, result, failure)

    def join(self, later: Wish) -> None:
        """A later sync wants the very same: it gets the same outcome."""
        self.also += [later.settlement, *later.also]
