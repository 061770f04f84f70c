"""The ledger of jobs: what is written together, refused twice, kept over a restart, and forgotten in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy.jobs import ledger
from agent.deploy.journal import Journal
from agent.domain.errors import Failure
from agent.domain.job import Cause, JobResult, JobRun, JobStanding
from agent.kit.mask import secrets

RUN = JobRun(
    id="job-1", app="report", cause=Cause.SCHEDULE, result=JobResult.WAITING, due=1000.0, created=1000.1
)


async def test_what_was_open_and_accounted_for_is_known_to_the_next_agent(tmp_path: Path) -> None:
    standing = JobStanding(1000.0, "* * * * * * UTC", "abc")
    async with await Journal.open(tmp_path / "journal.db") as journal:
        await journal.jobs.save("report", RUN, standing=standing)
        running = replace(RUN, result=JobResult.RUNNING, child="report/job-x", life="life-1", started=1000.2)
        await journal.jobs.save("report", running)
    async with await Journal.open(tmp_path / "journal.db") as journal:
        assert journal.jobs.open("report") == [running]
        assert journal.jobs.standing("report") == standing
        ended = replace(running, result=JobResult.SUCCEEDED, code=0, ended=1001.0)
        await journal.jobs.save("report", ended, output=["one", "two"])
        assert journal.jobs.open("report") == []
    async with await Journal.open(tmp_path / "journal.db") as journal:
        assert journal.jobs.last("report") == ended
        (row,) = await journal.jobs.history("report")
        assert (row["result"], row["code"], row["output"]) == ("succeeded", 0, ["one", "two"])


async def test_a_due_time_has_one_row_and_a_second_changes_nothing(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        await journal.jobs.save("report", RUN, standing=JobStanding(1000.0, "x"))
        with pytest.raises(Failure):
            await journal.jobs.save("report", replace(RUN, id="job-2"), standing=JobStanding(2000.0, "x"))
        assert journal.jobs.standing("report") == JobStanding(1000.0, "x")
        await journal.jobs.save("other", replace(RUN, id="job-3", app="other"))
        asked = replace(RUN, id="job-4", cause=Cause.OPERATOR, due=0.0)
        await journal.jobs.save("report", asked, replace(asked, id="job-5"))
        assert [row["id"] for row in await journal.jobs.history("report")] == ["job-5", "job-4", "job-1"]


async def test_rows_and_outputs_are_bounded_and_open_runs_stay(tmp_path: Path) -> None:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        await journal.jobs.save("report", RUN)
        for number in range(ledger.KEPT + 2 * ledger.COMPACT_EVERY):
            due, name = 2000.0 + number, f"job-b{number}"
            row = replace(RUN, id=name, due=due, result=JobResult.FAILED, started=due, ended=due)
            await journal.jobs.save("report", row, output=["said"])
        rows = await journal.jobs.history("report", ledger.KEPT)
        assert [run.id for run in journal.jobs.open("report")] == ["job-1"]
    async with await Journal.open(tmp_path / "journal.db") as journal:
        assert len(await journal.jobs.history("report", ledger.KEPT)) == ledger.KEPT
        kept = [row for row in await journal.jobs.history("report", ledger.KEPT) if row["output"]]
        assert len(kept) == ledger.OUTPUTS
        assert [run.id for run in journal.jobs.open("report")] == ["job-1"]
    assert rows[0]["output"] == ["said"]


async def test_what_is_secret_is_masked_in_what_is_kept(tmp_path: Path) -> None:
    secrets.add("hunter2-of-the-ledger")
    async with await Journal.open(tmp_path / "journal.db") as journal:
        await journal.jobs.save("report", RUN, output=["the password is hunter2-of-the-ledger"])
        (row,) = await journal.jobs.history("report")
        assert row["output"] == ["the password is ***"]
    assert b"hunter2-of-the-ledger" not in (tmp_path / "journal.db").read_bytes()


async def test_a_schedule_that_begins_anew_is_not_held_up_by_rows_of_a_clock_that_was_wrong(
    tmp_path: Path,
) -> None:
    async with await Journal.open(tmp_path / "journal.db") as journal:
        await journal.jobs.save("report", replace(RUN, due=9000.0), standing=JobStanding(9000.0, "x"))
        again = replace(RUN, id="job-2", due=9000.0)
        await journal.jobs.save("report", standing=JobStanding(500.0, "x"), anew=500.0)
        await journal.jobs.save("report", again, standing=JobStanding(9000.0, "x"))
        assert [row["id"] for row in await journal.jobs.history("report")] == ["job-2", "job-1"]
        assert [row["due"] for row in await journal.jobs.history("report")] == [
            "1970-01-01T02:30:00.000Z"
        ] * 2
