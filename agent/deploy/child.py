"""One child of an app and everything that belongs to it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.deploy.deployments import Deployment
from agent.domain.errors import FailureInfo, FailureKind
from agent.traffic.state import Gate


class ChildNote(msgspec.Struct, frozen=True):
    """What the keeper remembers with a child for the next agent."""

    app: str
    spec: str
    side: int
    instance: str
    run: str = ""
    number: int = 0


@dataclass(eq=False, slots=True)
class Child:
    """A running (or ended) process of an app.

    `side` is its side of the gate, `number` which of several instances it is, `crew` the name that all of
    these share. `joined`: it has, or is to get, its share of its side's clients. `expected` is set before
    the agent itself ends it, `taken_back` when it is to serve again. `ended` is set when it is gone; `code`
    and `signal` say how, `log` holds its last lines.
    """

    id: str
    pid: int
    side: int
    deployment: Deployment
    instance: Path
    gate: Gate | None
    number: int = 0
    crew: str = ""
    joined: bool = True
    expected: bool = False
    taken_back: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    code: int | None = None
    signal: int | None = None
    silent: bool = False  # it gave no sign of life, and was ended for it
    log: tuple[str, ...] = ()
    limit: str = ""  # the limit that ended it, in words

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self.ended.is_set()

    def exit_failure(self) -> FailureInfo:
        """Why it is gone, as a failure for people."""
        if self.limit:
            killed = self.signal == signal.SIGKILL or self.code == 128 + signal.SIGKILL
            how = "was killed by" if killed else f"ended with exit code {self.code} after it met"
            return FailureInfo(
                FailureKind.PERMANENT,
                "LimitExceeded",
                f"version {self.deployment.pair.version} {how} {self.limit}",
                where="run.limits",
                remedy="give it more, or see in its last lines what it needs so much for",
                log=self.log,
            )
        how = f"signal {self.signal}" if self.signal else f"exit code {self.code}"
        run = self.deployment.spec.run
        if self.silent and run is not None:
            return FailureInfo(
                FailureKind.PERMANENT,
                "WatchdogSilent",
                f"version {self.deployment.pair.version} gave no sign of life for {run.watchdog:g} s: {how}",
                where="run.watchdog",
                remedy="see its last lines; WATCHDOG=1 is due at least that often",
                log=self.log,
            )
        return FailureInfo(
            FailureKind.PERMANENT,
            "ChildExited",
            f"version {self.deployment.pair.version} ended by itself with {how}",
            where=" ".join(self.deployment.spec.run.command[:1]) if self.deployment.spec.run else "",
            remedy="see its last lines",
            log=self.log,
        )
