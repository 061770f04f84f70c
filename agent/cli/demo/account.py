"""What is known of one deploy, put together from what the agent told, the forge and the clients saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.cli.demo.facts import Fact
from agent.cli.demo.forge import Delivery


@dataclass(frozen=True, slots=True)
class Push:
    """A `git push` of ours: when it began (seconds since the epoch), and how long it took."""

    commit: str
    began: float
    seconds: float


@dataclass(frozen=True, slots=True)
class StepAccount:
    """A step: when it began (seconds since the epoch), how long it took, how it ended."""

    name: str
    why: str
    began: float
    seconds: float
    result: str


@dataclass(slots=True, kw_only=True)
class Account:
    """One run. Times are seconds since the epoch, durations seconds."""

    run: str
    sync: str
    version: str
    reason: str
    steps: list[StepAccount] = field(default_factory=list)
    results: list[str] = field(default_factory=list)  # as they were told: probation, then the last word
    ended: float = 0.0
    failure: dict[str, Any] | None = None
    delivery: Delivery | None = None
    push: Push | None = None
    live: float = 0.0  # when a client first got this version's answer; 0 for never

    @property
    def result(self) -> str:
        """The last word."""
        return self.results[-1] if self.results else "running"

    @property
    def webhook_to_live(self) -> float:
        """From sending the signed webhook to the first answer; 0 when there was not both."""
        return self.live - self.delivery.sent if self.live and self.delivery else 0.0

    @property
    def push_to_live(self) -> float:
        """From the beginning of `git push` to the first answer; 0 when there was not both."""
        return self.live - self.push.began if self.live and self.push else 0.0

    def as_json(self) -> dict[str, Any]:
        """For --json: times in milliseconds."""
        return {
            "version": self.version,
            "run": self.run,
            "sync": self.sync,
            "reason": self.reason,
            "results": self.results,
            "git_push_ms": _ms(self.push.seconds) if self.push else None,
            "webhook_answered_ms": _ms(self.delivery.seconds) if self.delivery else None,
            "push_to_live_ms": _ms(self.push_to_live),
            "webhook_to_live_ms": _ms(self.webhook_to_live),
            "steps": [
                {"name": step.name, "ms": _ms(step.seconds), "result": step.result} for step in self.steps
            ],
            "failure": self.failure,
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def account(facts: Sequence[Fact], run: str) -> Account:
    """All that was told of a run; it must have begun. Steps in the order in which they began."""
    begun = next(fact for fact in facts if fact["fact"] == "RunStarted" and fact["run"] == run)
    before = facts[: facts.index(begun)]
    wanted = [f["wanted"] for f in before if f["fact"] == "AppWanted" and f["app"] == begun["app"]]
    found = Account(run=run, sync=begun["sync"], version=wanted[-1]["version"], reason=begun["reason"])
    whys = {step["name"]: step["reason"] for step in begun["steps"]}
    began: dict[str, float] = {}
    found.steps += _look(before, begun)
    for fact in facts:
        if fact.get("run") != run:
            continue
        if fact["fact"] == "StepStarted":
            began.setdefault(fact["step"], fact["at"])
        elif fact["fact"] == "StepFinished":
            name = fact["step"]
            at = began[name] if name in began else fact["at"]
            step = StepAccount(name, whys.get(name, ""), at, float(fact["seconds"]), str(fact["result"]))
            found.steps.append(step)
        elif fact["fact"] == "RunFinished":
            found.results.append(fact["result"])
            found.ended = fact["at"]
            found.failure = fact["failure"] or found.failure
    found.steps.sort(key=lambda step: step.began)
    return found


def _look(before: Sequence[Fact], begun: Fact) -> list[StepAccount]:
    """What comes before a run's own steps: the look at the repository."""
    times = {fact["fact"]: fact["at"] for fact in before if fact.get("sync") == begun["sync"]}
    if not {"SyncStarted", "SyncResolved"} <= times.keys():
        return []
    began = times["SyncStarted"]
    why = "the announced commit and the branch, fetched together"
    return [StepAccount("resolve", why, began, times["SyncResolved"] - began, "succeeded")]
