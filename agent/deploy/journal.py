"""The journal: syncs, runs, steps, milestones, quarantine, ledger, letters and small facts, in SQLite.

It is history, and word to the next life of the agent; what serves is told by the links on disk, never
from here. Methods that write return at once and are not awaited, except with `durable=True`: then the
write, and all before it, are on the disk when the await ends (before migrate, switch and retire, and at
the end of a run). A durable write that fails raises OperatorNeeded; trouble with the others is told to
`on_error`, and they are tried again with the next write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from agent.deploy import journal_rows, ledger, quarantine
from agent.deploy.exec_ledger import ExecLedger
from agent.deploy.jobs import ledger as job_ledger
from agent.deploy.jobs.ledger import Ledger as JobLedger
from agent.deploy.journal_file import JournalFile, OnError, OnLost
from agent.deploy.journal_rows import UnfinishedRun, stored_failure, stored_plan
from agent.deploy.journal_schema import COMPACTION, Lost
from agent.deploy.ledger import Ledger
from agent.deploy.quarantine import Quarantine
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.model import Plan, RunResult, StepResult, SyncResult
from agent.kit.database import Statement
from agent.kit.mask import secrets
from agent.notify import outbox
from agent.notify.outbox import Outbox

log = logging.getLogger(__name__)
T = TypeVar("T")

COMPACT_EVERY = 100  # runs
_FACT = "INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)"

INTERRUPTED = FailureInfo(
    FailureKind.TRANSIENT,
    "Interrupted",
    "the agent ended in the middle of it",
    remedy="it looks again by itself",
)


class Journal:
    """See the module. Made by `open`; an asynchronous context manager that closes it."""

    def __init__(self, file: JournalFile) -> None:
        """Use `open`."""
        self._file = file
        self.quarantine: Quarantine
        self.ledger: Ledger
        self.outbox: Outbox
        self.jobs: JobLedger
        self.execs: ExecLedger
        self._facts: dict[str, str] = {}
        self._runs_since_compaction = 0
        self._write, self._read, self._look = file.write, file.read, file.look
        self.in_time = file.in_time

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        on_error: OnError | None = None,
        on_lost: OnLost | None = None,
        expected: bool = False,
    ) -> Self:
        """Open or create the journal. Raises OperatorNeeded.

        `on_lost` hears when a new one takes the place of one that cannot be used, or, if one was `expected`,
        is not there; also later. `on_error` hears that plain writes fail, and None when they work again.
        """
        file = await JournalFile.open(path, on_error=on_error, on_lost=on_lost, expected=expected)
        self = cls(file)
        try:
            entries, facts, letters, jobs, (migrations, reached) = await file.read(
                lambda c: (
                    quarantine.read(c),
                    journal_rows.facts(c),
                    outbox.read(c),
                    job_ledger.read(c),
                    ledger.read(c),
                )
            )
        except BaseException:
            await file.aclose()
            raise
        self.quarantine = Quarantine(entries, self._write)
        self.ledger = Ledger(migrations, reached, self._write)
        self.outbox = Outbox(letters, self._write)
        self.jobs = JobLedger(jobs, self._write, self._look)
        self.execs = ExecLedger(self._write, self._look)
        self._facts = facts
        file.kept = self._kept
        return self

    @property
    def lost(self) -> Lost | None:
        """Why another journal could not be used, at the opening or since."""
        return self._file.lost

    @property
    def makeshift(self) -> Failure | None:
        """Why the file could not be opened, so that nothing of this is kept; None when it is."""
        return self._file.makeshift

    async def usable(self) -> bool:
        """Whether the file can be opened by now."""
        return await self._file.usable()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what is queued and close the file."""
        await self._file.aclose()

    # -- syncs ------------------------------------------------------------------------------------

    def open_sync(
        self, sync: str, *, kinds: Sequence[str], detail: str = "", durable: bool = False
    ) -> Awaitable[None]:
        """A sync begins; `kinds` are those of its triggers."""
        return self._do(
            "INSERT OR REPLACE INTO syncs (id, kinds, detail, started, result) VALUES (?, ?, ?, ?, ?)",
            (sync, ",".join(kinds), secrets.text(detail)[:500], time.time(), SyncResult.RUNNING.value),
            durable,
        )

    def resolve_sync(self, sync: str, commit: str, *, durable: bool = False) -> Awaitable[None]:
        """The commit of a sync is known."""
        return self._do("UPDATE syncs SET commit_id = ? WHERE id = ?", (commit, sync), durable)

    def close_sync(
        self, sync: str, result: SyncResult, *, failure: FailureInfo | None = None, durable: bool = False
    ) -> Awaitable[None]:
        """A sync ended; called again it corrects the result, not the time."""
        return self._do(
            "UPDATE syncs SET ended = coalesce(ended, ?), result = ?, failure = ? WHERE id = ?",
            (time.time(), result.value, stored_failure(failure), sync),
            durable,
        )

    # -- runs and steps ---------------------------------------------------------------------------

    def open_run(
        self,
        run: str,
        sync: str,
        app: str,
        plan: Plan,
        *,
        spec: str,
        version: str,
        commit: str,
        durable: bool = False,
    ) -> Awaitable[None]:
        """A run begins. `spec` is the digest of the wanted specification."""
        statements: list[Statement] = [
            (
                "INSERT OR REPLACE INTO runs"
                " (id, sync, app, reason, plan, spec, version, commit_id, started, result)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run,
                    sync,
                    app,
                    plan.reason,
                    stored_plan(plan),
                    spec,
                    version,
                    commit,
                    time.time(),
                    RunResult.RUNNING.value,
                ),
            )
        ]
        self._runs_since_compaction += 1
        if self._runs_since_compaction >= COMPACT_EVERY:
            self._runs_since_compaction = 0
            statements += COMPACTION
        return self._write(tuple(statements), durable)

    def step_started(
        self, run: str, step: str, kind: str, attempt: int = 1, *, durable: bool = False
    ) -> Awaitable[None]:
        """An attempt of a step begins."""
        return self._do(
            "INSERT INTO steps (run, name, kind, attempt, started, result) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET attempt = excluded.attempt, result = excluded.result",
            (run, step, kind, attempt, time.time(), StepResult.RUNNING.value),
            durable,
        )

    def step_finished(
        self,
        run: str,
        step: str,
        result: StepResult,
        seconds: float,
        failure: FailureInfo | None = None,
        *,
        durable: bool = False,
    ) -> Awaitable[None]:
        """A step ended. UNDONE is kept beside how it ended before, `failure` then being the undo's."""
        if result is StepResult.UNDONE:
            return self._do(
                "UPDATE steps SET undone = 1, undo_failure = ? WHERE run = ? AND name = ?",
                (stored_failure(failure), run, step),
                durable,
            )
        return self._do(
            "INSERT INTO steps (run, name, kind, attempt, result, seconds, failure)"
            " VALUES (?, ?, '', 0, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET result = excluded.result, seconds = excluded.seconds, failure = excluded.failure",
            (run, step, result.value, seconds, stored_failure(failure)),
            durable,
        )

    def mark(self, run: str, name: str, detail: str = "", *, durable: bool = False) -> Awaitable[None]:
        """A milestone of a run, for recovery and history: "migrating", "switching", "retiring"."""
        return self._do(
            "INSERT INTO marks (run, name, detail, at) VALUES (?, ?, ?, ?)",
            (run, name, secrets.text(detail)[:500], time.time()),
            durable,
        )

    def close_run(
        self, run: str, result: RunResult, failure: FailureInfo | None = None, *, durable: bool = False
    ) -> Awaitable[None]:
        """A run ended; called again (after PROBATION) it corrects the result, not the time."""
        return self._do(
            "UPDATE runs SET ended = coalesce(ended, ?), result = ?, failure = ? WHERE id = ?",
            (time.time(), result.value, stored_failure(failure), run),
            durable,
        )

    async def safely(self, write: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """`write(*arguments)` durably; when the disk refuses, as a plain write, made once there is room.

        For what must go on whether or not it can be recorded.
        """
        try:
            await self.in_time(write(*arguments, durable=True))
        except Failure as error:
            log.error("%s", error)
            write(*arguments)

    # -- after a crash ----------------------------------------------------------------------------

    async def unfinished_runs(self) -> list[UnfinishedRun]:
        """Runs that were under way, or on probation, when the agent last ended."""
        return await self._read(journal_rows.unfinished)

    def mark_interrupted(self, run: str = "", *, durable: bool = False) -> Awaitable[None]:
        """Close a run as interrupted; "" means every run and sync that is still RUNNING.

        And every sync that waits for the end of a probation, and has no run on probation: it was told of
        that of another sync's run, and nobody remembers that it was.
        """
        now, why, running = time.time(), stored_failure(INTERRUPTED), RunResult.RUNNING.value
        statements: list[Statement] = []
        if not run:
            statements.append(
                (
                    "UPDATE syncs SET ended = ?1, result = ?2, failure = ?3 WHERE result = ?4"
                    " OR (result = ?5 AND id NOT IN (SELECT sync FROM runs WHERE result IN (?4, ?5)))",
                    (now, SyncResult.INTERRUPTED.value, why, running, SyncResult.PROBATION.value),
                )
            )
        statements += [
            (
                "UPDATE steps SET result = ?3 WHERE result = ?2"
                " AND run IN (SELECT id FROM runs WHERE id = ?1 OR (?1 = '' AND result = ?2))",
                (run, running, StepResult.CANCELLED.value),
            ),
            (
                "UPDATE runs SET ended = coalesce(ended, ?3), result = ?4, failure = ?5"
                " WHERE id = ?1 OR (?1 = '' AND result = ?2)",
                (run, running, now, RunResult.INTERRUPTED.value, why),
            ),
        ]
        return self._write(tuple(statements), durable)

    def settle_steps(self, run: str, finished: Mapping[str, str], undone: Sequence[str] = ()) -> None:
        """Correct how steps of a run ended that was cut off: they were finished, or taken back, since.

        `finished` are names with kinds: that a step had begun may not have been written either.
        """
        if statements := journal_rows.settled(run, finished, undone):
            self._write(statements)

    # -- looking back -----------------------------------------------------------------------------

    async def history(self, *, app: str = "", limit: int = 20, before: str = "") -> list[dict[str, Any]]:
        """Runs as JSON, newest first, with steps, marks and failure; `before` is a run's id to page on."""
        return await self._look(lambda c: journal_rows.history(c, app, max(0, min(limit, 1000)), before))

    async def failed_syncs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Syncs that ended badly before any run began, as JSON, newest first."""
        return await self._look(lambda c: journal_rows.failed_syncs(c, max(0, min(limit, 1000))))

    async def commits(self, start: str) -> list[str]:
        """Commits that were looked at and whose id begins so, the first few."""
        return await self._look(lambda c: journal_rows.commits(c, start))

    async def last_durations(self, app: str) -> dict[str, float]:
        """Median seconds of each step, by name, in the app's last runs. Raises OperatorNeeded."""
        return await self._look(lambda c: journal_rows.durations(c, app))

    # -- facts ------------------------------------------------------------------------------------

    def fact(self, key: str) -> str | None:
        """A small thing worth remembering over a restart (the pause's message, the last commit)."""
        return self._facts.get(key)

    def put_fact(self, key: str, value: str | None, *, durable: bool = False) -> Awaitable[None]:
        """Remember, or with None forget."""
        if value is None:
            self._facts.pop(key, None)
            return self._do("DELETE FROM facts WHERE key = ?", (key,), durable)
        self._facts[key] = value
        return self._do(_FACT, (key, value), durable)

    # -- the database -----------------------------------------------------------------------------

    def _do(
        self, sql: str, arguments: tuple[str | float | bytes | None, ...], durable: bool
    ) -> Awaitable[None]:
        return self._write(((sql, arguments),), durable)

    def _kept(self) -> list[Statement]:
        """What writes all that is kept in memory into a new file."""
        facts: list[Statement] = [(_FACT, (key, value)) for key, value in self._facts.items()]
        kept = (self.quarantine, self.ledger, self.outbox, self.jobs)
        return [*facts, *(statement for each in kept for statement in each.stored())]
