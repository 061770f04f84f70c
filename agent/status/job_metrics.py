"""The gauges of jobs, read from the board when scraped."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.domain.job import JobResult
from agent.status.board import Board


def of_jobs(board: Board) -> Iterable[Metric]:
    """What each job does next, and how its last run went."""
    following = GaugeMetricFamily(
        "emptybox_job_next_run_timestamp_seconds",
        "When the next run is due by the schedule, in seconds since the epoch; 0: never by itself.",
        labels=["app"],
    )
    running = GaugeMetricFamily("emptybox_job_runs_in_progress", "Runs under way.", labels=["app"])
    last = GaugeMetricFamily(
        "emptybox_job_last_run_timestamp_seconds", "When the last run ended.", labels=["app"]
    )
    seconds = GaugeMetricFamily(
        "emptybox_job_last_run_seconds", "How long the last run took, all attempts.", labels=["app"]
    )
    well = GaugeMetricFamily(
        "emptybox_job_last_run_succeeded", "Whether the last run succeeded.", labels=["app"]
    )
    for name, app in board.apps.items():
        job = app.job
        if job is None:
            continue
        following.add_metric([name], job.next)
        running.add_metric([name], len(job.running))
        if job.last is not None:
            last.add_metric([name], job.last.ended)
            seconds.add_metric([name], job.last.ended - job.last.started if job.last.started else 0.0)
            well.add_metric([name], job.last.result is JobResult.SUCCEEDED)
    yield from (following, running, last, seconds, well)
