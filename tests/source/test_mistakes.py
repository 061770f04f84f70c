"""Mistakes in a state file: each line as a person reads it, with the right place, all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.domain.errors import FailureKind
from agent.source.desired import StateInvalid, load
from tests.source.state_files import APP, HERE, SHA, mistakes, with_lines, write

EMPTY = 'is empty; leave the key out, or write "" for an empty text'
SPARSE = "apps:\n  web:\n    version: 1\n    run: {command: [x]}\n"


def test_the_example_of_the_promise(tmp_path: Path) -> None:
    text = """\
schema: 1
vars: {}
apps:
  web:
    version: 1.4.0
    env:
      A: a
      B: b
    run:
      command: [bin/web]
      user: web
    artifact:
      url: https://releases.example/web.tar.gz
      chekcsum: sha256:abc
"""
    assert mistakes(tmp_path, text) == [
        "state.yaml:14:7 apps.web.artifact.chekcsum: unknown key, did you mean checksum?"
    ]


def _table() -> list[tuple[str, list[str]]]:
    """The blocks of mistakes.txt: lines under the app `web`, then `=>` and what is said of them."""
    text = Path(__file__).with_name("mistakes.txt").read_text().replace("SHA", SHA)
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        blocks.append(
            (
                "\n".join(line for line in lines if not line.startswith("=> ")),
                [f"state.yaml:{line.removeprefix('=> ')}" for line in lines if line.startswith("=> ")],
            )
        )
    return blocks


@pytest.mark.parametrize(("lines", "expected"), _table(), ids=[lines[:40] for lines, _ in _table()])
def test_a_mistake_is_named_with_its_place(tmp_path: Path, lines: str, expected: list[str]) -> None:
    text = with_lines(lines)
    if lines.startswith("run:"):
        text = text.replace("    run: {command: [bin/web]}\n", "")
    assert mistakes(tmp_path, text) == expected


def test_an_app_with_nothing_to_run_says_why(tmp_path: Path) -> None:
    text = "apps:\n  a: {version: 1}\n  b: {version: 1, place: /srv}\n  c: {run: {command: [x]}}\n"
    assert mistakes(tmp_path, text) == [
        "state.yaml:2:3 apps.a.run: missing; or job, which runs to its end, or place, for files only",
        "state.yaml:3:19 apps.b.place: there is nothing to place: the app has no artifact and no files",
        "state.yaml:4:3 apps.c.version: missing",
    ]


FILES = "version: 1, files: [{content: x, target: t}]"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("srv/x", "place: a place is an absolute path: /var/www/docs"),
        ("/srv/../etc", "place: a place is written without .., . and empty names, and ends in a name"),
        ("/srv/", "place: a place is written without .., . and empty names, and ends in a name"),
        ("/", "place: a place is written without .., . and empty names, and ends in a name"),
        ('"/srv/a\\nb"', "place: holds control characters"),
        ("{}", "place: names no place"),
        ("{/srv/a: ../t}", "place./srv/a: must stay inside, this path has .."),
        ("{/srv/a: ., /srv/a/b: t}", "place./srv/a/b: /srv/a/b and /srv/a cannot both be links"),
    ],
)
def test_a_place_that_is_none_is_named(place: str, expected: str, tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"apps:\n  a: {{{FILES}, place: {place}}}\n")
    assert [line.split(" apps.a.")[1] for line in found] == [expected]


def test_two_apps_cannot_have_one_place_or_one_inside_the_other(tmp_path: Path) -> None:
    apps = f"  a: {{{FILES}, place: /srv/a}}\n  b: {{{FILES}, place: /srv/a/b}}\n"
    (found,) = mistakes(tmp_path, f"apps:\n{apps}")
    assert "/srv/a/b and /srv/a of a (state.yaml:2) cannot both be links" in found


def test_two_files_of_a_place_cannot_have_one_target(tmp_path: Path) -> None:
    files = "[{content: x, target: t}, {content: y, target: t}]"
    (found,) = mistakes(tmp_path, f"apps:\n  a: {{version: 1, files: {files}, place: /srv/a}}\n")
    assert found.endswith("apps.a.files[1].target: t is files[0] already")


def test_an_app_with_a_place_has_no_program(tmp_path: Path) -> None:
    keys = "run: {command: [x]}, listen: 80, env: {A: b}"
    text = f"apps:\n  a: {{{FILES}, place: /srv/a, {keys}}}\n"
    told = "an app with place has no program; write a second app for the program"
    assert [line.partition(" apps.a.")[2] for line in mistakes(tmp_path, text)] == [
        f"run: {told}",
        f"listen: {told}",
        f"env: {told}",
    ]


def test_mistakes_around_the_apps(tmp_path: Path) -> None:
    text = "schema: 2\nfreeze: [{cron: x}]\nvras: {a: b}\napps:\n  Web: {}\n  -x: {}\n  empty:\n  a.b: {}\n"
    named = "an app's name is up to 63 small letters, digits and -, with no - at its ends"
    assert mistakes(tmp_path, text) == [
        "state.yaml:1:9 schema: schema 2 is not known; this agent reads schema 1",
        "state.yaml:2:10 freeze[0].duration: missing; how long it lasts, as in 60h",
        "state.yaml:3:1 vras: unknown key, did you mean vars?",
        f"state.yaml:5:3 apps.Web: {named}",
        f"state.yaml:6:3 apps.-x: {named}",
        f"state.yaml:7:9 apps.empty: {EMPTY}",
        f"state.yaml:8:3 apps.a.b: {named}",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schema: 1\n", "state.yaml:1:1 apps: missing; write `apps: {}` when nothing should run"),
        ("apps:\n", f"state.yaml:1:6 apps: {EMPTY}"),
        ("apps: []\n", "state.yaml:1:7 apps: expected a mapping, found a list"),
        ("- apps\n", "state.yaml:1:1 expected a mapping, found a list"),
        ("text\n", "state.yaml:1:1 expected a mapping, found a text"),
        ("vars: {c: [~, x]}\napps: {}", f"state.yaml:1:12 vars.c[0]: {EMPTY}"),
    ],
)
def test_a_document_of_another_shape(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, text) == [line]


def test_two_apps_on_one_port_are_both_named(tmp_path: Path) -> None:
    text = (
        "apps:\n"
        "  a: {version: 1, run: {command: [x]}, listen: 8080}\n"
        "  b: {version: 1, run: {command: [x]}, listen: {web: {port: 8080, address: 127.0.0.1}}}\n"
        "  c: {version: 1, run: {command: [x]}, listen: 8080}\n"
        "  d: {version: 1, run: {command: [x]}, listen: 8080, only: {env: other}}\n"
        "  e: {version: 1, run: {command: [x]}, listen: {web: {port: 9000, address: 127.0.0.1}}}\n"
        "  f: {version: 1, run: {command: [x]}, listen: {web: {port: 9000, address: 127.0.0.2}}}\n"
    )
    assert mistakes(tmp_path, text) == [
        "state.yaml:3:54 apps.b.listen.web: b and a (state.yaml:2) both listen on port 8080",
        "state.yaml:4:48 apps.c.listen: c and a (state.yaml:2) both listen on port 8080",
    ]


def test_a_mistake_in_a_template_file_names_its_line(tmp_path: Path) -> None:
    text = with_lines("files: [{template: web.j2, target: a}]\nmaintenance: {page: page.html}")
    files = {
        "state.yaml": text,
        "web.j2": "a\nb {{ vars.nope }}\n",
        "page.html": "<p>{{ phase }}</p>\n\n{{ presents }}\n",
    }
    assert mistakes(tmp_path, files) == [
        "page.html:3:1 apps.web.maintenance.page: presents is not defined, did you mean percent?",
        "web.j2:2:1 apps.web.files[0].template: vars.nope is not defined",
    ]


def test_a_template_file_must_be_text_of_bounded_size(tmp_path: Path) -> None:
    text = with_lines(
        "files: [{template: a.j2, target: a}, {template: b.j2, target: b}, {template: dir, target: c}]"
    )
    files: dict[str, str | bytes] = {"state.yaml": text, "a.j2": b"\xff", "b.j2": "x" * 200_000, "dir/x": ""}
    assert mistakes(tmp_path, files) == [
        "state.yaml:5:24 apps.web.files[0].template: is not UTF-8 text",
        "state.yaml:5:53 apps.web.files[1].template: is larger than 128 KiB",
        "state.yaml:5:82 apps.web.files[2].template: is not a regular file",
    ]


def test_a_template_file_may_not_be_a_link_out_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    tree = write(tmp_path / "tree", {"state.yaml": with_lines("files: [{template: t, target: a}]")})
    (tree / "t").symlink_to("../outside")
    assert mistakes(tree, {}) == ["state.yaml:5:24 apps.web.files[0].template: leaves the repository"]


def test_what_follows_from_a_mistake_is_not_a_mistake_of_its_own(tmp_path: Path) -> None:
    text = "vars: [a]\n" + with_lines(
        "env: {A: '{{ vars.a }}'}\nsocket: df\nlisten: none\nswap: overlap\nhealth: {http: /, port: main}"
    )
    assert mistakes(tmp_path, text) == [
        "state.yaml:1:7 vars: expected a mapping, found a list",
        "state.yaml:7:13 apps.web.socket: expected one of adopt, fd, relay, found 'df'",
        "state.yaml:8:13 apps.web.listen: expected a whole number from 1 to 65535, found 'none'",
    ]


def test_the_shape_of_every_app_is_checked_and_the_meaning_of_those_for_this_host(tmp_path: Path) -> None:
    text = APP + "  other:\n    only: {env: test}\n    versoin: 1\n    env: {A: '{{ host.labels.rack }}'}\n"
    assert mistakes(tmp_path, text) == [
        "state.yaml:7:5 apps.other.versoin: unknown key, did you mean version?"
    ]
    there = replace(HERE, labels={"env": "test"})
    assert len(mistakes(tmp_path, text, view=there)) == 3


def test_a_hundred_mistakes_are_enough(tmp_path: Path) -> None:
    write(tmp_path, {"state.yaml": SPARSE + "".join(f"    k{n}: x\n" for n in range(20_000))})
    with pytest.raises(StateInvalid) as caught:
        load(tmp_path, "", HERE)
    assert len(caught.value.problems) == 100
    assert caught.value.info.log[-1] == "and more"


def test_five_hundred_apps_are_the_most(tmp_path: Path) -> None:
    apps = "".join(f"  a{n}: {{version: 1, run: {{command: [x]}}}}\n" for n in range(501))
    assert mistakes(tmp_path, f"apps:\n{apps}") == ["state.yaml:1:1 apps: more than 500 apps"]


def test_foreign_words_drive_no_terminal(tmp_path: Path) -> None:
    text = 'apps: {}\n"\\e[31mred\\a": 1\n' + "y" * 200 + ": 1\n"
    found = mistakes(tmp_path, text)
    assert found[0].startswith("state.yaml:2:1 \\x1b[31mred\\x07: unknown key")
    assert len(found[1]) < 200
    assert all(line.isprintable() for line in found)


def test_all_mistakes_are_raised_as_one_failure(tmp_path: Path) -> None:
    write(tmp_path, {"state.yaml": with_lines("listne: 80\nkeep: 0")})
    with pytest.raises(StateInvalid) as caught:
        load(tmp_path, "", HERE)
    info = caught.value.info
    assert info.kind is FailureKind.PERMANENT
    assert info.reason == "StateInvalid"
    assert info.where == "state.yaml:5:5"
    assert info.message == "apps.web.listne: unknown key, did you mean listen?"
    assert info.remedy == "correct the state file; it has 2 mistakes"
    assert list(info.log) == [str(p) for p in caught.value.problems]
    assert [p.line for p in caught.value.problems] == [5, 6]
