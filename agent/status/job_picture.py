"""What the board knows of a job: its schedule, what is under way, how the last run ended, what had none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from agent.domain.job import JobResult, JobRun, run_json
from agent.domain.job_events import JobEnded, JobPassed, JobPlanned, JobStarted
from agent.kit.clock import rfc3339

Json = dict[str, Any]
"""A JSON object."""

RUNNING_MAX = 8  # runs in the picture


@dataclass(slots=True)
class JobPicture:
    """Kept by facts. `passed` counts, since the agent started, due times at which no run began."""

    schedule: str = ""
    time_zone: str = ""
    next: float = 0.0
    running: dict[str, JobStarted] = field(default_factory=dict)
    last: JobRun | None = None
    passed: Counter[JobResult] = field(default_factory=Counter)

    def planned(self, event: JobPlanned) -> None:
        """The next run is due then."""
        self.schedule, self.time_zone, self.next = event.schedule, event.time_zone, event.next

    def started(self, event: JobStarted) -> None:
        """An attempt runs."""
        self.running[event.run] = event
        while len(self.running) > RUNNING_MAX:
            del self.running[next(iter(self.running))]

    def ended(self, event: JobEnded) -> None:
        """A run ended."""
        self.running.pop(event.run.id, None)
        self.last = event.run

    def missed(self, event: JobPassed) -> None:
        """No run began."""
        self.passed[event.result] += event.count

    def as_json(self) -> Json:
        """The member `job` of an app in /status."""
        last = None
        if self.last is not None:
            told = run_json(self.last)
            kept = (
                "id",
                "cause",
                "result",
                "attempt",
                "due",
                "started",
                "ended",
                "seconds",
                "code",
                "signal",
            )
            last = {**{name: told[name] for name in kept}, "failure": told["failure"]}
        return {
            "schedule": self.schedule or None,
            "time_zone": self.time_zone or None,
            "next": rfc3339(self.next) or None,
            "running": [
                {
                    "id": event.run,
                    "cause": str(event.cause),
                    "attempt": event.attempt,
                    "pid": event.pid,
                    "due": rfc3339(event.due) or None,
                    "since": rfc3339(event.at),
                }
                for event in self.running.values()
            ],
            "last": last,
            "missed": self.passed[JobResult.MISSED],
            "skipped": self.passed[JobResult.SKIPPED],
        }
