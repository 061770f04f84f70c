"""What had to happen in the demo, and whether it did: the exit code's whole reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.cli.demo.account import Account
from agent.cli.demo.load import Load

LAST_WORDS = "the database pool is exhausted"  # what v3 of the sample server says before it turns bad


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to happen."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What was seen, put down when it was: the agent's word, and the app's own on its port."""

    load: Load
    accounts: dict[str, Account] = field(default_factory=dict)  # by version
    pids: dict[str, int | None] = field(default_factory=dict)  # of the child that served, by version
    pid_after: int | None = None  # of the child that serves after the rollback
    status: Mapping[str, Any] = field(default_factory=dict)  # the app's part of /status, at the end
    history: list[Mapping[str, Any]] = field(default_factory=list)
    answer: str = ""  # of the app's port, at the end

    @property
    def swaps_began(self) -> float:
        """When v2 was pushed (seconds since the epoch)."""
        push = self.accounts["v2"].push
        return push.began if push else 0.0


def checks(seen: Evidence) -> list[Check]:
    """All of them, in the order of the story."""
    bad = seen.accounts["v3"]
    failure = seen.status.get("last_failure") or {}
    log = list(failure.get("log") or [])
    current = (seen.status.get("current") or {}).get("version")
    lost = sum(seen.load.lost.values())
    return [
        _lived(seen, "v1"),
        _lived(seen, "v2"),
        Check("v3 went live, and was taken back", bad.results == ["probation", "rolled-back"], _told(bad)),
        Check(
            "the reason is told, with the last lines of its log",
            failure.get("reason") == "ProbeFailed" and any(LAST_WORDS in line for line in log),
            f"{failure.get('reason')}, {len(log)} lines",
        ),
        Check("v2 serves again", (seen.answer, current) == ("v2", "v2"), f"/status says {current}"),
        Check(
            "by a flip: v2's process was never stopped",
            seen.pid_after is not None and seen.pid_after == seen.pids.get("v2"),
            f"pid {seen.pid_after}",
        ),
        Check(
            "each came by a signed webhook",
            all(a.delivery is not None and a.delivery.status == 202 for a in seen.accounts.values()),
        ),
        _remembered(seen),
        Check(
            "clients were there all the time",
            all(seen.load.answered.get(version, 0) > 0 for version in seen.accounts),
            ", ".join(f"{name}: {count}" for name, count in sorted(seen.load.answered.items())),
        ),
        Check("no request was lost", lost == 0, str(dict(seen.load.lost)) if lost else ""),
        Check(
            "no swap needed the maintenance page",
            seen.load.page_last < seen.swaps_began,
        ),
    ]


def _lived(seen: Evidence, version: str) -> Check:
    account = seen.accounts[version]
    ok = bool(account.live) and account.result == "succeeded"
    return Check(f"{version} went live, and proved itself", ok, _told(account))


def _told(account: Account) -> str:
    return ", then ".join(account.results) or "its run has no end"


def _remembered(seen: Evidence) -> Check:
    """The history is what happened."""
    wanted = {"v1": "succeeded", "v2": "succeeded", "v3": "rolled-back"}
    told = {str(run["version"]): str(run["result"]) for run in seen.history}
    pushed = all("push" in run["triggers"] for run in seen.history)
    return Check(
        "the history says so", told == wanted and pushed, ", ".join(f"{v} {r}" for v, r in told.items())
    )
