"""A release on probation, and the syncs that wait for its last word."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agent.deploy.deployments import Deployment
from agent.deploy.wish import Wish
from agent.domain.errors import FailureInfo
from agent.domain.model import SyncResult


@dataclass(eq=False, slots=True)
class OnTrial:
    """A release being watched."""

    run: str
    wish: Wish
    deployment: Deployment
    joined: list[Wish] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    crashes: int = 0

    def settle(self, result: SyncResult, failure: FailureInfo | None = None) -> None:
        """Tell every sync that waits for the last word."""
        for wish in (self.wish, *self.joined):
            wish.settle(result, failure)
