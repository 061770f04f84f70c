"""What a plan says of apps without a program, and of files that were changed by hand."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from agent.deploy.planner import Situation, plan
from agent.domain.model import NoChange, Plan
from agent.domain.spec import AppSpec, DriftSpec, ManagedFile, OnChange, PlaceSpec, ReloadSpec, RunSpec
from tests.deploy.test_planner import WEB, needs, other, steps

DOCS = AppSpec(
    name="docs",
    version="1",
    artifact=WEB.artifact,
    places=(PlaceSpec(path="/srv/docs"),),
    after=("nginx", "-s", "reload"),
)
CONF = ManagedFile(target="etc/a", content=b"1", on_change=OnChange.RELOAD, reload=ReloadSpec(signal="USR1"))
QUIET = ManagedFile(target="etc/b", content=b"1", on_change=OnChange.NONE)


def docs(**parts: object) -> AppSpec:
    return msgspec.structs.replace(DOCS, **parts)


def test_files_are_placed_once_all_is_ready_and_others_are_told_then() -> None:
    found = plan(DOCS, Situation(first=True))
    assert isinstance(found, Plan)
    assert found.reason == "first placing"
    assert steps(found) == ["fetch", "verify", "unpack", "render", "check", "place", "after", "record"]
    assert needs(found)["place"] == {"check"}
    assert needs(found)["after"] == {"place"}
    assert steps(plan(docs(after=()), Situation(in_store=True)))[-3:] == ["check", "place", "record"]


def test_what_is_placed_is_left_alone_but_an_unfinished_placing_is_not() -> None:
    assert isinstance(plan(DOCS, Situation(current=DOCS, alive=True)), NoChange)
    found = plan(DOCS, Situation(current=DOCS, alive=False, in_store=True))
    assert isinstance(found, Plan)
    assert found.reason == "the last placing did not end"
    assert "after" in steps(found)


def test_a_file_a_place_or_a_command_that_changes_places_anew_and_a_label_does_not() -> None:
    for parts in ({"files": (CONF,)}, {"places": (PlaceSpec(path="/srv/x"),)}, {"after": ("true",)}):
        assert "place" in steps(plan(docs(**parts), Situation(current=DOCS, alive=True, in_store=True)))
    for label in ({"version": "2"}, {"keep": 5}, {"drift": DriftSpec(action="report")}):
        assert steps(plan(docs(**label), Situation(current=DOCS, alive=True))) == ["record"]


def test_in_a_freeze_files_are_prepared_and_not_placed() -> None:
    frozen = Situation(current=DOCS, alive=True, in_store=True, frozen="frozen: weekend")
    assert steps(plan(docs(after=("true",)), frozen)) == ["unpack", "render", "check"]


def test_a_program_that_becomes_files_is_stopped_first_and_files_that_become_one_are_taken_away() -> None:
    became = plan(docs(name="web"), Situation(current=WEB, alive=True, in_store=True))
    assert steps(became)[-4:] == ["stop", "place", "after", "record"]
    assert needs(became)["place"] == {"stop"}
    back = plan(WEB, Situation(current=docs(name="web"), alive=True, in_store=True))
    assert steps(back)[-4:] == ["start", "probe", "switch", "unplace"]


def test_a_repair_tells_the_program_only_of_files_that_it_reads_again() -> None:
    spec = other(files=(CONF, QUIET))
    serves = Situation(current=spec, alive=True)
    for drifted, expected in (
        (("etc/b", "etc/stranger"), ["repair"]),
        (("etc/a", "etc/b"), ["repair", "reload", "probe"]),
    ):
        found = plan(spec, replace(serves, drifted=drifted))
        assert isinstance(found, Plan)
        assert found.repairs
        assert steps(found) == expected
        assert found.reason == f"{', '.join(drifted)} changed on this host"
    assert steps(plan(DOCS, Situation(current=DOCS, alive=True, drifted=("/srv/docs",)))) == [
        "repair",
        "after",
    ]


def test_each_changed_file_is_told_of_in_its_own_way() -> None:
    three = ManagedFile(target="etc/c", content=b"1", on_change=OnChange.RELOAD)
    old = other(files=(CONF, QUIET, three), run=RunSpec(command=("bin/web",)))
    new = other(
        files=(
            msgspec.structs.replace(CONF, content=b"2"),
            msgspec.structs.replace(QUIET, content=b"2"),
            three,
        )
    )
    found = plan(new, Situation(current=old, alive=True))
    assert isinstance(found, Plan)
    assert steps(found) == ["render", "check", "reload", "probe", "record"]
    assert next(step for step in found.steps if step.name == "reload").options["targets"] == ("etc/a",)
