"""What the journal holds, read back: runs as JSON for people, unfinished runs for recovery, durations.

Every function here blocks on its connection: they run in the journal's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from agent.domain.errors import FailureInfo
from agent.domain.model import Plan, RunResult, StepResult, SyncResult
from agent.kit.clock import rfc3339
from agent.kit.database import Statement
from agent.kit.mask import secrets

LOG_LINES = 200  # of a failure, the last ones
LOG_LINE = 1000  # characters of each
MESSAGE = 4000  # characters
RECENT = 20  # runs that an estimate looks back at
SIGNED = "signed"  # the mark that names the signer of a run's commit
ARTIFACT_SIGNED = "artifact-signed"  # ... and of its artifact


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that may have no end in the journal: the agent died in it, or its release is on probation.

    `marks` are its milestones in order, `kinds` what kind of step each planned one is, in the plan's order,
    `steps` how far each came as far as that was written; the last moments before a death may not have been.
    """

    id: str
    sync: str
    app: str
    spec: str
    version: str
    commit: str
    result: RunResult  # RUNNING, PROBATION, or INTERRUPTED for want of a better word
    sync_result: SyncResult  # the sync's last word so far
    started: float
    marks: tuple[str, ...]
    steps: Mapping[str, StepResult]
    kinds: Mapping[str, str]


def bounded(failure: FailureInfo) -> FailureInfo:
    """A failure cut to what is worth keeping, masked: the journal outlives what is known to be secret."""
    lines = tuple(secrets.text(line)[:LOG_LINE] for line in failure.log[-LOG_LINES:])
    message, remedy = secrets.text(failure.message)[:MESSAGE], secrets.text(failure.remedy)
    return replace(failure, message=message, where=secrets.text(failure.where), remedy=remedy, log=lines)


def stored_failure(failure: FailureInfo | None) -> bytes | None:
    """As the journal keeps it."""
    return None if failure is None else msgspec.json.encode(bounded(failure))


def stored_plan(plan: Plan) -> bytes:
    """Names, kinds, reasons and needs of the steps. Their options stay out: they may come from the spec."""
    return msgspec.json.encode([[s.name, s.kind, s.reason, list(s.needs)] for s in plan.steps])


def history(connection: sqlite3.Connection, app: str, limit: int, before: str) -> list[dict[str, Any]]:
    """Runs, newest first: of `app` (or all), at most `limit`, older than the run `before` (or any)."""
    rows = connection.execute(
        "SELECT runs.id, sync, app, reason, plan, spec, version, runs.commit_id, runs.started, runs.ended,"
        " runs.result, runs.failure, kinds, detail"
        " FROM runs LEFT JOIN syncs ON syncs.id = runs.sync"
        " WHERE (?1 = '' OR app = ?1)"
        " AND (?2 = '' OR runs.seq < (SELECT seq FROM runs WHERE id = ?2))"
        " ORDER BY runs.seq DESC LIMIT ?3",
        (app, before, limit),
    ).fetchall()
    return [_run(connection, row) for row in rows]


def failed_syncs(connection: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """Syncs that ended with a failure and without a run, newest first."""
    rows = connection.execute(
        "SELECT id, kinds, detail, commit_id, started, ended, result, failure FROM syncs"
        " WHERE failure IS NOT NULL AND ended IS NOT NULL AND id NOT IN (SELECT sync FROM runs)"
        " ORDER BY seq DESC LIMIT ?",
        (limit,),
    )
    return [
        {
            "id": sync,
            "commit": commit,
            "triggers": kinds.split(",") if kinds else [],
            "detail": detail,
            "result": result,
            "started": rfc3339(started),
            "ended": rfc3339(ended),
            "seconds": round(ended - started, 6),
            "failure": _json(failure),
        }
        for sync, kinds, detail, commit, started, ended, result, failure in rows
    ]


def commits(connection: sqlite3.Connection, start: str) -> list[str]:
    """Ids of commits that begin with these hexadecimal digits, the first few."""
    rows = connection.execute(
        "SELECT commit_id FROM runs WHERE substr(commit_id, 1, ?1) = ?2"
        " UNION SELECT commit_id FROM syncs WHERE substr(commit_id, 1, ?1) = ?2 LIMIT 10",
        (len(start), start),
    )
    return [commit for (commit,) in rows]


def _run(connection: sqlite3.Connection, row: tuple[Any, ...]) -> dict[str, Any]:
    run, sync, app, reason, plan, spec, version, commit, started, ended, result, failure, kinds, detail = row
    marks = [
        {"name": name, "detail": detail, "at": rfc3339(at)}
        for name, detail, at in connection.execute(
            "SELECT name, detail, at FROM marks WHERE run = ? ORDER BY seq", (run,)
        )
    ]
    return {
        "id": run,
        "sync": sync,
        "app": app,
        "commit": commit,
        "signer": next((mark["detail"] for mark in marks if mark["name"] == SIGNED), None),
        "artifact_signer": next((mark["detail"] for mark in marks if mark["name"] == ARTIFACT_SIGNED), None),
        "version": version,
        "spec": spec,
        "reason": reason,
        "triggers": kinds.split(",") if kinds else [],
        "detail": detail or "",
        "result": result,
        "started": rfc3339(started),
        "ended": rfc3339(ended or 0.0),
        "seconds": round(ended - started, 6) if ended is not None else None,
        "steps": _steps(connection, run, msgspec.json.decode(plan)),
        "marks": [mark for mark in marks if mark["name"] not in (SIGNED, ARTIFACT_SIGNED)],
        "failure": _json(failure),
    }


def _steps(connection: sqlite3.Connection, run: str, plan: list[list[Any]]) -> list[dict[str, Any]]:
    """The steps in the plan's order, each with what became of it."""
    cursor = connection.execute(
        "SELECT name, attempt, started, seconds, result, failure, undone, undo_failure"
        " FROM steps WHERE run = ?",
        (run,),
    )
    known = {row[0]: row[1:] for row in cursor}
    steps = []
    for name, kind, reason, needs in plan:
        fallback = (0, None, None, StepResult.PENDING.value, None, 0, None)
        attempt, started, seconds, result, failure, undone, undo_failure = known.get(name, fallback)
        steps.append(
            {
                "name": name,
                "kind": kind,
                "reason": reason,
                "needs": needs,
                "result": result,
                "attempts": attempt,
                "started": rfc3339(started or 0.0),
                "seconds": seconds,
                "undone": bool(undone),
                "failure": _json(failure),
                "undo_failure": _json(undo_failure),
            }
        )
    return steps


def _json(stored: bytes | None) -> Any:
    return None if stored is None else msgspec.json.decode(stored)


def unfinished(connection: sqlite3.Connection) -> list[UnfinishedRun]:
    """Runs without an end, oldest first, and the newest of an app if it was called interrupted.

    An agent calls them that before it looks what became of them, and may die over that.
    """
    rows = connection.execute(
        "SELECT runs.id, sync, app, spec, version, runs.commit_id, runs.result, syncs.result, runs.started,"
        " plan"
        " FROM runs LEFT JOIN syncs ON syncs.id = runs.sync"
        " WHERE runs.result IN (?, ?) OR (runs.result = ?"
        " AND runs.seq = (SELECT max(newer.seq) FROM runs AS newer WHERE newer.app = runs.app))"
        " ORDER BY runs.seq",
        (RunResult.RUNNING.value, RunResult.PROBATION.value, RunResult.INTERRUPTED.value),
    ).fetchall()
    found = []
    for run, sync, app, spec, version, commit, result, synced, started, plan in rows:
        marks = connection.execute("SELECT name FROM marks WHERE run = ? ORDER BY seq", (run,))
        steps = connection.execute("SELECT name, result FROM steps WHERE run = ?", (run,))
        found.append(
            UnfinishedRun(
                run,
                sync,
                app,
                spec,
                version,
                commit,
                RunResult(result),
                SyncResult(synced or SyncResult.RUNNING),
                started,
                tuple(name for (name,) in marks),
                {name: StepResult(word) for name, word in steps},
                {name: kind for name, kind, _, _ in msgspec.json.decode(plan)},
            )
        )
    return found


def settled(run: str, finished: Mapping[str, str], undone: Sequence[str]) -> tuple[Statement, ...]:
    """What makes the journal say so: steps with their kinds that succeeded, and some that were taken back."""
    done = (
        "INSERT INTO steps (run, name, kind, attempt, result) VALUES (?, ?, ?, 1, ?)"
        " ON CONFLICT DO UPDATE SET result = excluded.result"
    )
    back = "UPDATE steps SET undone = 1 WHERE run = ? AND name = ?"
    word = StepResult.SUCCEEDED.value
    return (
        *((done, (run, name, kind, word)) for name, kind in finished.items()),
        *((back, (run, name)) for name in undone),
    )


def durations(connection: sqlite3.Connection, app: str) -> dict[str, float]:
    """Median seconds of each step, by name, that succeeded in the app's last runs."""
    rows = connection.execute(
        "SELECT name, seconds FROM steps WHERE result = ? AND seconds IS NOT NULL"
        " AND run IN (SELECT id FROM runs WHERE app = ? ORDER BY seq DESC LIMIT ?)",
        (StepResult.SUCCEEDED.value, app, RECENT),
    )
    of_step: dict[str, list[float]] = {}
    for name, seconds in rows:
        of_step.setdefault(name, []).append(seconds)
    return {name: sorted(values)[len(values) // 2] for name, values in of_step.items()}


def facts(connection: sqlite3.Connection) -> dict[str, str]:
    """All small facts."""
    return dict(connection.execute("SELECT key, value FROM facts").fetchall())
