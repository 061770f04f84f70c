"""What a plan says, for every kind of difference between what is and what is wanted."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.differences import changes
from agent.deploy.graph import Graph, Node
from agent.deploy.planner import Situation, plan
from agent.domain.artifact_spec import ArtifactSpec, Checksum, SignatureSpec
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import NoChange, Plan
from agent.domain.spec import (
    AppSpec,
    CanarySpec,
    ContainerSpec,
    HealthSpec,
    IsolationSpec,
    LimitsSpec,
    ManagedFile,
    MigrationSpec,
    OnChange,
    PortSpec,
    ReloadSpec,
    RestartSpec,
    RunSpec,
    SocketMode,
    StopSpec,
    Swap,
    TaskSpec,
)

WEB = AppSpec(
    name="web",
    version="1.0",
    artifact=ArtifactSpec(url="http://h/web-1.0.tar.gz", checksum=Checksum(algorithm="sha256", hex="a" * 64)),
    run=RunSpec(command=("bin/web",)),
    listen=(PortSpec(name="http", port=8080),),
    socket=SocketMode.FD,
    swap=Swap.OVERLAP,
)


def other(**parts: object) -> AppSpec:
    return msgspec.structs.replace(WEB, **parts)


def steps(outcome: Plan | NoChange) -> list[str]:
    assert isinstance(outcome, Plan), outcome.reason
    return [step.name for step in outcome.steps]


def needs(outcome: Plan | NoChange) -> dict[str, set[str]]:
    assert isinstance(outcome, Plan)
    return {step.name: set(step.needs) for step in outcome.steps}


THREE = RunSpec(command=("bin/web",), instances=3)


def test_further_instances_come_after_the_first_and_before_the_switch() -> None:
    outcome = plan(other(version="2.0", run=THREE, env={"A": "b"}), Situation(current=WEB, alive=True))
    assert steps(outcome)[-5:] == ["start", "probe", "rollout", "switch", "drain"]
    canary = other(run=THREE, env={"A": "b"}, canary=CanarySpec(percent=10, duration=60.0))
    outcome = plan(canary, Situation(current=WEB, alive=True))
    assert needs(outcome)["rollout"] == {"canary"}
    assert needs(outcome)["switch"] == {"rollout"}


def test_another_number_of_instances_alone_touches_no_other() -> None:
    outcome = plan(other(run=THREE), Situation(current=WEB, alive=True))
    assert steps(outcome) == ["scale", "record"]
    assert needs(outcome)["record"] == {"scale"}
    assert isinstance(outcome, Plan)
    assert outcome.steps[0].reason == "1 -> 3 instances"


def test_what_serves_already_is_left_alone() -> None:
    assert plan(WEB, Situation(current=WEB, alive=True)) == NoChange("web", "up to date")


def test_a_first_start_fetches_checks_and_starts_without_draining_anything() -> None:
    assert steps(plan(WEB, Situation(first=True))) == [
        "fetch", "verify", "unpack", "render", "check", "start", "probe", "switch",
    ]  # fmt: skip


def test_a_release_in_the_store_is_not_fetched_again() -> None:
    outcome = plan(WEB, Situation(in_store=True))
    assert "fetch" not in steps(outcome)
    assert "unpack" in steps(outcome)


def test_an_overlap_probes_before_the_switch_and_drains_after_it() -> None:
    outcome = plan(other(version="2", env={"A": "b"}), Situation(current=WEB, alive=True, in_store=True))
    assert steps(outcome)[-4:] == ["start", "probe", "switch", "drain"]
    assert "stop" not in steps(outcome)
    assert needs(outcome)["switch"] == {"probe"}


CANARY = {"canary": CanarySpec(percent=10, duration=60), "env": {"A": "b"}}


def test_a_canary_comes_between_probe_and_switch() -> None:
    outcome = plan(other(**CANARY), Situation(current=WEB, alive=True, in_store=True))
    assert steps(outcome)[-5:] == ["start", "probe", "canary", "switch", "drain"]
    found = needs(outcome)
    assert (found["canary"], found["switch"]) == ({"probe"}, {"canary"})


@pytest.mark.parametrize(
    ("parts", "now"),
    [
        ({}, Situation(in_store=True, first=True)),
        ({}, Situation(current=WEB, alive=False, in_store=True)),
        ({}, Situation(current=WEB, alive=True, in_store=True, comparable=False)),
        ({}, Situation(current=WEB, alive=True, in_store=True, memory_short="no memory")),
        ({"swap": Swap.RESTART}, Situation(current=WEB, alive=True, in_store=True)),
        ({"listen": ()}, Situation(current=WEB, alive=True, in_store=True)),
        ({"socket": SocketMode.RELAY}, Situation(current=WEB, alive=True, in_store=True)),
    ],
)
def test_there_is_no_canary_without_something_sound_to_share_with(
    parts: dict[str, object], now: Situation
) -> None:
    outcome = plan(other(**{**CANARY, **parts}), now)
    assert "canary" not in steps(outcome)
    assert "switch" in steps(outcome)


def test_a_changed_canary_alone_touches_nothing() -> None:
    wanted = other(canary=CanarySpec(percent=10, duration=60))
    assert steps(plan(wanted, Situation(current=WEB, alive=True))) == ["record"]


def test_what_is_to_be_done_before_the_switch_is_done_before_the_first_clients_come() -> None:
    tasks = (
        TaskSpec(name="warm", command=("w",)),
        TaskSpec(name="named", command=("w",), before=("switch",)),
    )
    found = needs(plan(other(**CANARY, tasks=tasks), Situation(current=WEB, alive=True, in_store=True)))
    assert found["canary"] == {"probe", "task warm", "task named"}


def test_a_restart_stops_the_old_child_only_after_every_check_and_migration() -> None:
    wanted = other(swap=Swap.RESTART, env={"A": "b"}, migrate=(MigrationSpec(name="db", command=("m",)),))
    outcome = plan(wanted, Situation(current=WEB, alive=True, in_store=True))
    assert steps(outcome)[-5:] == ["migrate", "stop", "start", "probe", "switch"]
    assert needs(outcome)["stop"] == {"migrate"}


def test_ports_that_overlap_with_the_old_ones_force_a_restart_and_the_step_says_so() -> None:
    outcome = plan(
        other(env={"A": "b"}), Situation(current=WEB, alive=True, in_store=True, gate_conflict=True)
    )
    assert isinstance(outcome, Plan)
    stop = next(step for step in outcome.steps if step.name == "stop")
    assert "ports" in stop.reason


def test_an_overlap_without_memory_for_two_becomes_a_restart_that_says_why() -> None:
    short = "the running version uses 300 MiB, 100 MiB are left"
    outcome = plan(
        other(env={"A": "b"}), Situation(current=WEB, alive=True, in_store=True, memory_short=short)
    )
    assert isinstance(outcome, Plan)
    stop = next(step for step in outcome.steps if step.name == "stop")
    assert short in stop.reason


def test_several_migrations_run_one_after_the_other_in_the_files_order() -> None:
    wanted = other(
        migrate=(MigrationSpec(name="b", command=("m",)), MigrationSpec(name="a", command=("m",))),
        version="2",
    )
    wanted = msgspec.structs.replace(wanted, env={"X": "1"})
    found = needs(plan(wanted, Situation(current=WEB, alive=True, in_store=True)))
    assert found["migrate a"] == {"migrate b"}
    assert found["start"] == {"migrate a"}


@pytest.mark.parametrize(
    ("on_change", "expected"),
    [
        (OnChange.RELOAD, ["render", "check", "reload", "probe", "record"]),
        (OnChange.NONE, ["render", "check", "reload", "record"]),
    ],
)
def test_changed_files_alone_download_and_restart_nothing_unless_they_ask(
    on_change: OnChange, expected: list[str]
) -> None:
    old = other(files=(ManagedFile(target="etc/a", content=b"1", on_change=on_change),))
    new = other(files=(ManagedFile(target="etc/a", content=b"2", on_change=on_change),))
    assert steps(plan(new, Situation(current=old, alive=True))) == expected


def test_one_changed_file_that_asks_for_a_restart_restarts() -> None:
    old = other(files=(ManagedFile(target="etc/a", content=b"1"),))
    new = other(files=(ManagedFile(target="etc/a", content=b"2"),))
    assert "switch" in steps(plan(new, Situation(current=old, alive=True, in_store=True)))


def test_settings_that_only_the_agent_uses_touch_nothing() -> None:
    wanted = other(health=HealthSpec(probation=5), keep=7)
    assert steps(plan(wanted, Situation(current=WEB, alive=True))) == ["record"]


OTHER_RUN: dict[str, object] = {
    "command": ("bin/other",), "user": "www-data", "group": "www-data", "umask": 0o077, "nice": 5, "oom": 500,
    "rlimits": {"NOFILE": 99}, "limits": LimitsSpec(memory=1 << 26), "watchdog": 5.0,
    "isolation": IsolationSpec(tier="strict"),
    "container": ContainerSpec(hostname="other"),
    "stop": StopSpec(grace=1.0), "restart": RestartSpec(budget=1), "reload": ReloadSpec(signal="USR1"),
    "instances": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", RunSpec.__struct_fields__)
def test_a_part_of_run_that_a_process_is_born_with_takes_a_new_process(name: str) -> None:
    assert WEB.run is not None
    run = msgspec.structs.replace(WEB.run, **{name: OTHER_RUN[name]})
    taken = steps(plan(other(run=run), Situation(current=WEB, alive=True)))
    by_the_agent = {"stop": "record", "restart": "record", "reload": "record", "instances": "scale"}
    assert taken[0] == by_the_agent[name] if name in by_the_agent else "start" in taken


def test_another_mirror_and_a_login_that_changed_touch_nothing() -> None:
    assert WEB.artifact is not None
    places = msgspec.structs.replace(WEB.artifact, mirrors=("http://other/web",), headers={"X-Token": "new"})
    wanted = other(artifact=places)
    assert wanted.digest != WEB.digest
    assert steps(plan(wanted, Situation(current=WEB, alive=True))) == ["record"]


def test_a_quarantined_specification_is_not_tried_and_the_way_out_is_named() -> None:
    bad = FailureInfo(FailureKind.PERMANENT, "ProbeFailed", "HTTP 500")
    outcome = plan(other(version="2", env={"A": "1"}), Situation(current=WEB, alive=True, quarantined=bad))
    assert isinstance(outcome, NoChange)
    assert "ProbeFailed" in outcome.reason
    assert "emptybox retry web" in outcome.reason


def test_a_pause_holds_runs_back_with_the_operators_words() -> None:
    outcome = plan(other(env={"A": "1"}), Situation(current=WEB, alive=True, paused="release freeze"))
    assert isinstance(outcome, NoChange)
    assert "release freeze" in outcome.reason


def test_a_freeze_lets_everything_be_prepared_that_touches_nothing() -> None:
    frozen = "frozen until 2026-11-23 06:00 UTC: weekend"
    tasks = (TaskSpec(name="warm", command=("bin/warm",)),)
    wanted = other(
        version="2", env={"A": "1"}, tasks=tasks, migrate=(MigrationSpec(name="m", command=("x",)),)
    )
    now = Situation(current=WEB, alive=True, frozen=frozen)
    outcome = plan(wanted, now)
    assert isinstance(outcome, Plan)
    assert {step.kind for step in outcome.steps} <= {"fetch", "verify", "release", "render", "check"}
    assert outcome.steps[-1].kind == "check"
    assert outcome.reason.startswith(frozen)
    again = plan(wanted, replace(now, prepared=True))
    assert again == NoChange(WEB.name, f"prepared; {frozen}")
    assert plan(other(keep=9), now) == NoChange(WEB.name, frozen)  # a record would be all
    assert plan(WEB, now) == NoChange(WEB.name, "up to date")


@pytest.mark.parametrize("now", [Situation(), Situation(current=WEB, alive=False)])
def test_where_nothing_runs_a_freeze_holds_nothing_up(now: Situation) -> None:
    outcome = plan(WEB, replace(now, frozen="frozen until then"))
    assert isinstance(outcome, Plan)
    assert "switch" in [step.name for step in outcome.steps]


def test_what_is_wanted_but_does_not_run_is_started_again() -> None:
    outcome = plan(WEB, Situation(current=WEB, alive=False, in_store=True))
    assert isinstance(outcome, Plan)
    assert outcome.reason == "nothing runs"
    assert "stop" not in steps(outcome)


def test_a_task_waits_for_the_whole_pair_and_holds_up_the_switch() -> None:
    wanted = other(tasks=(TaskSpec(name="warm", command=("w",), after=("unpack",)),), env={"A": "1"})
    found = needs(plan(wanted, Situation(current=WEB, alive=True, in_store=True)))
    assert found["task warm"] == {"check"}
    assert "task warm" in found["switch"]


def test_a_task_after_the_switch_holds_up_nothing() -> None:
    wanted = other(tasks=(TaskSpec(name="tell", command=("w",), after=("switch",)),), env={"A": "1"})
    found = needs(plan(wanted, Situation(current=WEB, alive=True, in_store=True)))
    assert found["task tell"] == {"check", "switch"}
    assert all("task tell" not in wants for wants in found.values())


def test_tasks_may_wait_for_one_another_and_hold_up_the_first_migration() -> None:
    wanted = other(
        tasks=(
            TaskSpec(name="a", command=("w",), before=("migrate",)),
            TaskSpec(name="b", command=("w",), after=("a",)),
        ),
        migrate=(MigrationSpec(name="one", command=("m",)), MigrationSpec(name="two", command=("m",))),
        env={"A": "1"},
    )
    found = needs(plan(wanted, Situation(current=WEB, alive=True, in_store=True)))
    assert "task a" in found["migrate one"]
    assert found["task b"] == {"check", "task a"}


def test_a_difference_is_told_with_versions_and_file_names() -> None:
    old = other(files=(ManagedFile(target="etc/a", content=b"1"),))
    new = other(files=(ManagedFile(target="etc/a", content=b"2"),), version="2.0")
    assert changes(old, new) == ["version 1.0 -> 2.0", "file etc/a"]


points = st.sampled_from(["fetch", "unpack", "check", "migrate", "stop", "start", "probe", "switch", "drain"])


@given(
    after=st.lists(points, max_size=2),
    alive=st.booleans(),
    in_store=st.booleans(),
    swap=st.sampled_from(Swap),
    migrations=st.integers(0, 2),
)
def test_every_plan_is_a_graph_whose_needs_exist(
    after: list[str], alive: bool, in_store: bool, swap: Swap, migrations: int
) -> None:
    wanted = other(
        env={"A": "1"},
        swap=swap,
        tasks=(TaskSpec(name="t", command=("w",), after=tuple(after)),),
        migrate=tuple(MigrationSpec(name=f"m{n}", command=("m",)) for n in range(migrations)),
    )
    outcome = plan(wanted, Situation(current=WEB, alive=alive, in_store=in_store))
    assert isinstance(outcome, Plan)

    async def nothing() -> None: ...

    Graph([Node(name=s.name, needs=s.needs, run=nothing, deadline=1.0) for s in outcome.steps])


def test_a_signature_alone_touches_nothing_but_is_looked_at() -> None:
    artifact = ArtifactSpec(
        url="http://h/web-1.0.tar.gz",
        checksum=Checksum(algorithm="sha256", hex="0" * 64),
        signature=SignatureSpec(kind="minisign", keys="RW"),
    )
    web = other(artifact=msgspec.structs.replace(artifact, signature=None))
    asked = "the state asks for a signature (minisign)"
    now = Situation(current=web, alive=True, in_store=False, signatures=asked)
    outcome = plan(other(artifact=artifact), now)
    assert steps(outcome) == ["fetch", "verify", "unpack", "record"]
    assert isinstance(outcome, Plan)
    assert asked in next(step.reason for step in outcome.steps if step.name == "verify")
    assert steps(plan(other(artifact=artifact), replace(now, in_store=True))) == ["record"]
