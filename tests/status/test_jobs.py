"""What is told of a job: in the picture, in words, in metrics, to listeners, and to a chat."""

from __future__ import annotations

from dataclasses import replace

from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.events import AppRemoved
from agent.domain.job import Cause, JobResult, JobRun
from agent.domain.job_events import JobEnded, JobPassed, JobPlanned, JobStarted
from agent.status.feed import fact_json
from agent.status.narrator import sentence
from agent.web.words import as_text
from tests.kit.scenes import Stage

FAILED = FailureInfo(FailureKind.PERMANENT, "JobFailed", "the job ended with exit code 7", log=("said",))
RUN = JobRun(
    id="job-1", app="report", cause=Cause.SCHEDULE, result=JobResult.FAILED, due=1000.0, attempt=2,
    started=1000.5, ended=1003.0, code=7, failure=FAILED,
)  # fmt: skip


async def test_the_picture_the_words_and_the_metrics_follow_a_job() -> None:
    stage = Stage()
    stage.bus.publish(JobPlanned("report", "15 3 * * *", "UTC", 5000.0))
    stage.bus.publish(JobStarted("report", "job-1", Cause.SCHEDULE, 1, 77, 1000.0))
    job = stage.board.snapshot()["apps"]["report"]["job"]
    assert (job["schedule"], job["next"]) == ("15 3 * * *", "1970-01-01T01:23:20.000Z")
    assert [(run["id"], run["pid"], run["cause"]) for run in job["running"]] == [("job-1", 77, "schedule")]

    stage.bus.publish(JobEnded("report", RUN, 2.5))
    stage.bus.publish(JobPassed("report", JobResult.MISSED, 3, 1004.0, 1006.0))
    picture = stage.board.snapshot()
    job = picture["apps"]["report"]["job"]
    assert (job["running"], job["missed"]) == ([], 3)
    assert (job["last"]["code"], job["last"]["seconds"], job["last"]["attempt"]) == (7, 2.5, 2)
    assert job["last"]["failure"]["reason"] == "JobFailed"
    assert "failed with exit code 7" in as_text(picture, 1010.0)
    text = (await stage.metrics.text()).decode()
    assert 'emptybox_job_runs_total{app="report",result="failed"} 1.0' in text
    assert 'emptybox_job_runs_total{app="report",result="missed"} 3.0' in text
    assert 'emptybox_job_next_run_timestamp_seconds{app="report"} 5000.0' in text
    assert 'emptybox_job_last_run_succeeded{app="report"} 0.0' in text

    stage.bus.publish(JobPlanned("report", "", "", 0.0, gone=True))
    assert stage.board.snapshot()["apps"]["report"]["job"] is None
    stage.bus.publish(AppRemoved("report"))
    assert "emptybox_job_runs_total{" not in (await stage.metrics.text()).decode()


async def test_the_last_run_of_an_earlier_agent_is_shown_and_not_counted_again() -> None:
    stage = Stage()
    stage.bus.publish(
        JobEnded("report", replace(RUN, result=JobResult.SUCCEEDED, failure=None), 0.0, earlier=True)
    )
    assert stage.board.snapshot()["apps"]["report"]["job"]["last"]["result"] == "succeeded"
    assert "emptybox_job_runs_total{" not in (await stage.metrics.text()).decode()


def test_the_log_has_a_line_for_what_an_operator_wants_to_read() -> None:
    assert sentence(JobEnded("report", RUN, 2.5)) == (
        30,
        "report: run job-1 (schedule) failed after 2.5 s: JobFailed: the job ended with exit code 7",
    )
    assert sentence(JobEnded("report", RUN, 0.0, earlier=True)) is None
    told = sentence(JobPassed("report", JobResult.SKIPPED, 1, 1000.0, 1000.0))
    assert told == (30, "report: skipped once, last due at 1970-01-01T00:16:40.000Z")


def test_listeners_get_the_run_as_json() -> None:
    told = fact_json(JobEnded("report", RUN, 2.5))
    assert (told["run"]["id"], told["run"]["result"]) == ("job-1", "failed")
    assert fact_json(JobPlanned("report", "* * * * *", "UTC", 60.0))["next"] == "1970-01-01T00:01:00.000Z"
