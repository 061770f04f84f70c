"""The flat form: version, distro-url and vars in state.json, a template beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.spec import AppSpec, HealthSpec, ManagedFile, OnChange, ProbeKind, RunSpec
from agent.source.desired import load, validate
from agent.source.schema.artifact_url import SCHEMES
from tests.source.state_files import HERE, SHA, mistakes, read, write

FLAT = {"version": "0.1.0", "distro-url": "https://dist.example/app-{{ version }}", "vars": {"name": "Anna"}}
TEMPLATE = "hello = {{ vars.name }}\nversion = {{ version }}\n"
RENDERED = b"hello = Anna\nversion = 0.1.0\n"


def test_it_is_one_app_that_runs_what_it_downloads(tmp_path: Path) -> None:
    files = {"state.json": json.dumps(FLAT | {"checksum": SHA}), "templates/app": TEMPLATE}
    loaded = read(tmp_path, files)
    assert loaded.warnings == ()
    assert loaded.apps == {
        "app": AppSpec(
            name="app",
            version="0.1.0",
            artifact=ArtifactSpec(
                url="https://dist.example/app-0.1.0",
                checksum=Checksum(algorithm="sha256", hex="ab" * 32),
                archive="none",
            ),
            files=(ManagedFile(target="app.config", content=RENDERED, on_change=OnChange.RESTART),),
            run=RunSpec(command=("bin/app",)),
            health=HealthSpec(kind=ProbeKind.ALIVE, alive=2.0),
        )
    }


def test_without_a_checksum_it_runs_and_warns(tmp_path: Path) -> None:
    loaded = read(tmp_path, {"state.json": json.dumps(FLAT)})
    artifact = loaded.apps["app"].artifact
    assert artifact is not None
    assert artifact.checksum == Checksum(algorithm="sha256")
    assert loaded.apps["app"].files == ()
    assert loaded.warnings == (
        "state.json:1:22 distro-url: the artifact has no checksum: whatever the server sends will run; "
        "add `checksum`",
    )


def test_it_may_be_yaml_and_its_template_may_end_in_j2(tmp_path: Path) -> None:
    text = "version: 0.10\ndistro-url: http://d.example/{{ version }}\n"
    loaded = read(tmp_path, {"state.yaml": text, "templates/app.j2": "{{ version }}"})
    assert loaded.apps["app"].files[0].content == b"0.10"


@pytest.mark.parametrize("name", ["app", "app.j2"])
def test_the_template_may_lie_in_the_image(tmp_path: Path, name: str) -> None:
    tree = write(tmp_path / "tree", {"state.json": json.dumps(FLAT)})
    image = write(tmp_path / "image", {name: TEMPLATE})
    assert load(tree, "", HERE, image=image).apps["app"].files[0].content == RENDERED
    write(image, {name: "a\n{{ vars.nam }}"})
    assert [str(p) for p in validate(tree, "", HERE, image=image)] == [
        f"templates/{name} of the image template: vars.nam is not defined, did you mean vars.name? "
        "(line 2 of the text)"
    ]
    write(tree, {"templates/app": "from the repository"})
    assert load(tree, "", HERE, image=image).apps["app"].files[0].content == b"from the repository"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"version": "1", "distro_url": "http://x/y", "vars": {}}',
            ["state.json:1:18 distro_url: unknown key, did you mean distro-url?"],
        ),
        ('{"version": "1"}', ["state.json:1:1 distro-url: missing"]),
        ('{"distro-url": "http://x/y"}', ["state.json:1:1 version: missing"]),
        (
            '{"version": ["1"], "distro-url": "gopher://x/y", "checksum": {}, "vars": "x"}',
            [
                "state.json:1:13 version: expected a text, found a list",
                f"state.json:1:34 distro-url: unknown scheme gopher, known are {', '.join(SCHEMES)}",
                "state.json:1:62 checksum: expected a text, found a mapping",
                "state.json:1:74 vars: expected a mapping, found a text",
            ],
        ),
        (
            '{"version": "1", "distro-url": "http://{{ vars.host }}/y", "checksum": "sha1:0"}',
            [
                "state.json:1:32 distro-url: vars.host is not defined",
                "state.json:1:72 checksum: sha1 is too weak; use sha256 or sha512",
            ],
        ),
        (
            '{"version": "1", "distro-url": "http://x/y", "run": {}}',
            ["state.json:1:46 run: unknown key, known are version, distro-url, checksum, vars"],
        ),
    ],
)
def test_its_mistakes_are_named_by_its_own_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert mistakes(tmp_path, {"state.json": text}) == expected


def test_both_forms_in_one_file_are_a_mistake(tmp_path: Path) -> None:
    found = mistakes(tmp_path, {"state.json": '{"apps": {}, "distro-url": "http://x/y"}'})
    assert found == ["state.json:1:14 distro-url: unknown key, known are schema, extends, vars, freeze, apps"]


def test_a_mistake_in_its_template_names_the_line(tmp_path: Path) -> None:
    files = {"state.json": json.dumps(FLAT | {"checksum": SHA}), "templates/app": "a\n\n{{ vars.nmae }}"}
    assert mistakes(tmp_path, files) == [
        "templates/app:3:1 template: vars.nmae is not defined, did you mean vars.name?"
    ]
