"""A run for journals in tests."""

from agent.deploy.journal import Journal
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import Plan, PlannedStep

COMMIT = "c" * 40


FAILURE = FailureInfo(
    FailureKind.PERMANENT,
    "ProbeFailed",
    "503 from /healthz",
    "probe",
    "look at the log",
    ("line 1", "line 2"),
)


PLAN = Plan(
    "web",
    "1.4.0 replaces 1.3.0",
    (
        PlannedStep("fetch", "fetch", "not in the store", (), {"token": "a secret of the spec"}),
        PlannedStep("start", "start", "a new child", ("fetch",)),
        PlannedStep("probe", "probe", "health decides", ("start",)),
    ),
)


def open_run(journal: Journal, run: str = "run-1", app: str = "web") -> None:
    journal.open_run(run, "sync-1", app, PLAN, spec="s" * 64, version="1.4.0", commit=COMMIT)
