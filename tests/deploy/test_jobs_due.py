"""When a job is due: cron in time zones, over the clock's changes, and what was missed."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.jobs.due import COUNTED, Due, becomes, due, upcoming
from agent.domain.cron import CronInvalid, following, last, occurrences
from agent.domain.job import JobResult
from agent.domain.spec import JobSpec

BERLIN = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def times(cron: str, zone: str, begin: str, count: int) -> list[str]:
    """The next ones, as that zone's clocks show them."""
    found = islice(occurrences(cron, zone, at(begin)), count)
    return [moment.isoformat(timespec="minutes") for moment in found]


def test_a_time_that_a_night_in_spring_skips_is_due_right_after_the_gap() -> None:
    assert times("30 2 * * *", BERLIN, "2026-03-28T12:00+00:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]


def test_a_time_that_a_night_in_autumn_has_twice_is_due_once() -> None:
    assert times("30 2 * * *", BERLIN, "2026-10-24T12:00+00:00", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]


def test_what_is_due_every_half_hour_follows_the_real_time_through_that_night() -> None:
    assert times("*/30 * * * *", BERLIN, "2026-10-25T00:10+00:00", 4) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:00+01:00",
    ]


def test_the_same_hour_is_another_in_another_time_zone() -> None:
    noon = at("2026-07-01T00:00+00:00")
    assert following("0 9 * * *", "America/New_York", noon) == at("2026-07-01T13:00+00:00")
    assert following("0 9 * * *", "Asia/Kolkata", noon) == at("2026-07-01T03:30+00:00")
    with pytest.raises(CronInvalid) as caught:
        following("0 9 * * *", "Europe/Atlantis", noon)
    assert caught.value.field == "time_zone"


def test_nothing_is_due_before_its_time_and_one_time_is_due_once() -> None:
    job = JobSpec(command=("x",), schedule="0 * * * *")
    begin = at("2026-07-01T10:00+00:00")
    assert due(job, begin, begin + 3599.9) is None
    found = due(job, begin, begin + 3600.0)
    assert found is not None
    assert (found.latest, found.earlier) == (begin + 3600, 0)
    assert due(job, found.latest, begin + 3600.0) is None
    assert upcoming(job, found.latest, begin + 3600.0) == begin + 7200
    assert due(JobSpec(command=("x",)), begin, begin + 1e6) is None


def test_what_was_missed_is_counted_and_counting_has_a_bound() -> None:
    job = JobSpec(command=("x",), schedule="* * * * * *")
    found = due(job, 1000.0, 1005.5)
    assert found is not None
    assert (found.first, found.before, found.latest, found.earlier) == (1001.0, 1004.0, 1005.0, 4)
    found = due(job, 1000.0, 1000.0 + 40 * 86400)
    assert found is not None
    assert (found.first, found.latest, found.earlier) == (1001.0, 1000.0 + 40 * 86400, COUNTED)


@pytest.mark.parametrize(
    ("job", "late", "busy", "result"),
    [
        ({}, 0.1, False, JobResult.WAITING),
        ({}, 3600.0, False, JobResult.WAITING),  # one run makes up for what was missed
        ({"missed": "skip"}, 5.0, False, JobResult.WAITING),
        ({"missed": "skip"}, 3600.0, False, JobResult.MISSED),
        ({}, 0.1, True, JobResult.SKIPPED),
        ({"overlap": True}, 0.1, True, JobResult.WAITING),
        ({"overlap": True, "missed": "skip"}, 60.0, True, JobResult.MISSED),
    ],
)
def test_what_a_time_becomes_follows_the_policy(
    job: dict[str, Any], late: float, busy: bool, result: JobResult
) -> None:
    spec = JobSpec(command=("x",), schedule="0 * * * *", **job)
    assert becomes(spec, Due(7200.0), 7200.0 + late, busy=busy) is result


SCHEDULES = ("* * * * * *", "*/7 * * * *", "30 2 * * *", "0 9-17 * * MON-FRI", "0 0 29 2 *")


@given(
    cron=st.sampled_from(SCHEDULES),
    zone=st.sampled_from(("UTC", BERLIN, "America/New_York", "Australia/Lord_Howe")),
    begin=st.integers(1_700_000_000, 1_900_000_000),
    looks=st.lists(st.integers(0, 900), min_size=1, max_size=8),
)
def test_however_often_the_clock_is_looked_at_each_time_is_accounted_for_once(
    cron: str, zone: str, begin: int, looks: list[int]
) -> None:
    job = JobSpec(command=("x",), schedule=cron, time_zone=zone)
    accounted, now, counted = float(begin), float(begin), 0
    for seconds in looks:
        now += seconds
        found = due(job, accounted, now)
        if found is not None:
            assert accounted < found.latest <= now
            accounted, counted = found.latest, counted + found.earlier + 1
    every = [moment.timestamp() for moment in islice(occurrences(cron, zone, begin), counted + 1)]
    every = [time for time in every if begin < time <= now]
    assert counted == len(every)


def test_the_last_time_is_not_after_now() -> None:
    now = at("2026-07-01T10:30:15+00:00")
    assert last("0 * * * *", "UTC", now) == at("2026-07-01T10:00+00:00")
    assert last("* * * * * *", "UTC", now + 0.5) == now
