"""What a plan says where an app is a job, becomes one, or is one no more."""

from __future__ import annotations

import msgspec

from agent.deploy.planner import Situation, plan
from agent.domain.model import Plan
from agent.domain.spec import AppSpec, HealthSpec, JobSpec, MigrationSpec, PlaceSpec, TaskSpec
from tests.deploy.test_planner import WEB, needs, steps

JOB = AppSpec(
    name="web",
    version="1.0",
    artifact=WEB.artifact,
    job=JobSpec(command=("bin/report",), schedule="0 3 * * *"),
    health=HealthSpec(probation=0.0),
)
NEXT = msgspec.structs.replace(JOB, job=JobSpec(command=("bin/report", "--new")))


def planned(wanted: AppSpec, now: Situation) -> Plan:
    found = plan(wanted, now)
    assert isinstance(found, Plan)
    return found


def test_a_first_release_of_a_job_starts_nothing() -> None:
    found = planned(JOB, Situation(first=True))
    assert steps(found) == ["fetch", "verify", "unpack", "render", "check", "record"]
    assert found.reason == "first release"


def test_an_update_waits_for_the_run_under_way_before_anything_is_migrated() -> None:
    wanted = msgspec.structs.replace(NEXT, migrate=(MigrationSpec(name="schema", command=("m",)),))
    found = planned(wanted, Situation(current=JOB, alive=True, in_store=True))
    assert steps(found) == ["unpack", "render", "check", "rest", "migrate", "record"]
    assert needs(found)["migrate"] == {"rest"}
    assert needs(found)["record"] == {"migrate"}


def test_a_job_waits_for_what_it_needs_before_its_runs_are_held_up() -> None:
    wanted = msgspec.structs.replace(NEXT, needs=("db",))
    found = planned(wanted, Situation(current=JOB, alive=True, in_store=True))
    assert steps(found) == ["unpack", "render", "check", "needs", "rest", "record"]
    assert needs(found)["rest"] == {"needs"}


def test_a_task_holds_up_the_release_of_a_job() -> None:
    wanted = msgspec.structs.replace(NEXT, tasks=(TaskSpec(name="warm", command=("w",)),))
    found = planned(wanted, Situation(current=JOB, alive=True, in_store=True))
    assert "task warm" in needs(found)["record"]


def test_a_server_that_becomes_a_job_is_stopped_and_a_job_that_becomes_a_server_rests() -> None:
    found = planned(JOB, Situation(current=WEB, alive=True, in_store=True))
    assert steps(found) == ["unpack", "render", "check", "stop", "record"]
    found = planned(WEB, Situation(current=JOB, alive=True, in_store=True))
    assert steps(found)[:5] == ["unpack", "render", "check", "rest", "start"]


def test_places_are_taken_away_from_an_app_that_becomes_a_job() -> None:
    placed = AppSpec(name="web", version="1", artifact=WEB.artifact, places=(PlaceSpec(path="/srv/x"),))
    found = planned(JOB, Situation(current=placed, alive=True, in_store=True))
    assert steps(found)[-2:] == ["record", "unplace"]
    found = planned(placed, Situation(current=JOB, alive=True, in_store=True))
    assert needs(found)["place"] == {"rest"}
