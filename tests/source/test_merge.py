"""`extends`, directories of files, and the files a state is read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.source.merge import read_state
from agent.source.nodes import mark_at, plain
from agent.source.problems import Problems
from agent.source.tree import Tree
from tests.source.state_files import APP, mistakes, read, write


def test_the_usual_names_are_found(tmp_path: Path) -> None:
    for number, (name, text) in enumerate(
        {"state.yaml": APP, "state.yml": APP, "state.json": '{"apps": {}}'}.items()
    ):
        assert read(tmp_path / str(number), {name: text}).file == name


def test_two_of_the_usual_names_are_one_too_many(tmp_path: Path) -> None:
    assert mistakes(tmp_path, {"state.yaml": APP, "state.json": "{}"}) == [
        "state.yaml is not the only one, state.json is there too: keep one"
    ]


def test_no_file_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    assert mistakes(tmp_path, {}) == [
        "state.yaml is not there, nor state.yml or state.json: nothing says what should run"
    ]
    assert mistakes(tmp_path, {}, path="deep/box.yaml") == ["deep/box.yaml is not there"]


def test_a_path_may_name_any_file(tmp_path: Path) -> None:
    assert read(tmp_path, {"hosts/box.yaml": APP}, "./hosts//box.yaml").file == "hosts/box.yaml"


def test_a_base_is_merged_below_and_keeps_its_place(tmp_path: Path) -> None:
    files = {
        "base.yaml": "vars: {a: base, b: base}\napps:\n  web:\n    version: 1\n"
        "    run: {command: [bin/web], usr: x}\n    env: {A: a, B: b}\n"
        "  old: {version: 1, run: {command: [x]}}\n",
        "hosts/state.yaml": "extends: [../base.yaml]\nvars: {b: own}\napps:\n  web:\n    version: 2\n"
        "    env: {B: ~, C: c}\n    kep: 2\n  old: ~\n",
    }
    assert mistakes(tmp_path, files, "hosts/state.yaml") == [
        "base.yaml:5:31 apps.web.run.usr: unknown key, did you mean user?",
        "hosts/state.yaml:7:5 apps.web.kep: unknown key, did you mean keep?",
    ]
    files = {name: text.replace(", usr: x", "").replace("    kep: 2\n", "") for name, text in files.items()}
    loaded = read(tmp_path, files, "hosts/state.yaml")
    assert list(loaded.apps) == ["web"], "nothing in a file takes away what its base has"
    assert loaded.apps["web"].version == "2"
    assert loaded.apps["web"].env == {"A": "a", "C": "c"}


def test_a_mistake_in_a_value_of_a_base_names_the_base(tmp_path: Path) -> None:
    files = {
        "base.yaml": "apps:\n  web:\n    run: {command: [bin/web, '{{ vars.a }}']}\n    keep: many\n",
        "state.yaml": "extends: base.yaml\napps: {web: {version: 1}}\n",
    }
    assert mistakes(tmp_path, files) == [
        "base.yaml:3:30 apps.web.run.command[1]: vars.a is not defined",
        "base.yaml:4:11 apps.web.keep: expected a whole number from 1 to 100, found 'many'",
    ]


def test_later_bases_win_and_lists_are_replaced(tmp_path: Path) -> None:
    files = {
        "a.yaml": "apps: {web: {version: a, run: {command: [a, b]}, keep: 7}}",
        "b.yaml": "apps: {web: {version: b, run: {command: [c]}}}",
        "state.yaml": "extends: [a.yaml, b.yaml]\n",
    }
    app = read(tmp_path, files).apps["web"]
    assert app.run is not None
    assert (app.version, app.run.command, app.keep) == ("b", ("c",), 7)


def test_five_bases_deep_is_the_most(tmp_path: Path) -> None:
    files = {f"{n}.yaml": f"extends: [{n + 1}.yaml]\nvars: {{v{n}: x}}\n" for n in range(5)}
    files["5.yaml"] = APP
    assert read(tmp_path, files, "0.yaml").apps["web"].version == "1.10"
    files["5.yaml"] = "extends: [6.yaml]"
    files["6.yaml"] = APP
    assert mistakes(tmp_path, files, "0.yaml") == ["5.yaml:1:11 extends: goes deeper than 5 files"]


def test_a_circle_is_named(tmp_path: Path) -> None:
    files = {"state.yaml": "extends: a.yaml", "a.yaml": "extends: [b.yaml]", "b.yaml": "extends: [a.yaml]"}
    assert mistakes(tmp_path, files) == ["b.yaml:1:11 extends: goes in a circle: a.yaml → b.yaml → a.yaml"]


def test_a_base_used_twice_is_no_circle(tmp_path: Path) -> None:
    files = {
        "base.yaml": APP,
        "a.yaml": "extends: [base.yaml]\nvars: {x: a}",
        "b.yaml": "extends: [base.yaml]\nvars: {x: b}",
        "state.yaml": "extends: [a.yaml, b.yaml]",
    }
    assert list(read(tmp_path, files).apps) == ["web"]


def test_bases_that_cannot_be_had_are_all_named(tmp_path: Path) -> None:
    text = 'extends: [nope.yaml, ../x.yaml, /etc/passwd, "", [a], dir, base.yaml, base.yaml]\n' + APP
    assert mistakes(tmp_path, {"state.yaml": text, "base.yaml": "vars: {}", "dir/x": ""}) == [
        "state.yaml:1:11 extends: nope.yaml is not there",
        "state.yaml:1:22 extends: ../x.yaml leaves the repository",
        "state.yaml:1:33 extends: /etc/passwd is absolute; names are relative to the repository",
        "state.yaml:1:46 extends: expected the name of a file",
        "state.yaml:1:50 extends: expected the name of a file",
        "state.yaml:1:55 extends: dir is not a regular file",
        "state.yaml:1:71 extends: base.yaml is listed twice",
    ]


def test_a_link_out_of_the_repository_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text(APP)
    tree = write(
        tmp_path / "tree", {"state.yaml": "extends: [link.yaml, loop.yaml, inside.yaml]\n", "real.yaml": APP}
    )
    (tree / "link.yaml").symlink_to("../outside.yaml")
    (tree / "loop.yaml").symlink_to("loop.yaml")
    (tree / "inside.yaml").symlink_to("real.yaml")
    assert mistakes(tree, {}) == [
        "state.yaml:1:11 extends: link.yaml leaves the repository",
        "state.yaml:1:22 extends: loop.yaml is a loop of symbolic links",
    ]


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.yaml")
    assert mistakes(tmp_path, {}) == ["state.yaml is not a regular file"]


def test_a_directory_of_files_is_one_state(tmp_path: Path) -> None:
    files = {
        "box/a.yaml": "schema: 1\nvars: {who: you}\napps: {a: {version: 1, run: {command: [x]}}}",
        "box/b.yml": "schema: 1\napps: {b: {version: 1, run: {command: ['{{ vars.who }}']}}}",
        "box/c.json": '{"apps": {"c": {"version": "1", "run": {"command": ["x"]}}}}',
        "box/.hidden.yaml": "nonsense: [",
        "box/notes.txt": "nonsense",
        "box/deeper/d.yaml": "nonsense",
    }
    loaded = read(tmp_path, files, "box")
    assert list(loaded.apps) == ["a", "b", "c"]
    assert loaded.file == "box"
    assert loaded.apps["b"].run is not None
    assert loaded.apps["b"].run.command == ("you",)


def test_two_files_of_a_directory_may_not_define_one_thing(tmp_path: Path) -> None:
    files = {
        "box/a.yaml": "schema: 1\nvars: {x: 1, same: s}\napps:\n  web: {version: 1, run: {command: [x]}}\n",
        "box/b.yaml": "schema: 2\nvars: {x: 2, same: t}\napps:\n  web: {version: 1, run: {command: [x]}}\n",
    }
    told = "is defined in box/a.yaml:{} too; a directory's files share nothing"
    assert mistakes(tmp_path, files, "box") == [
        "box/b.yaml:1:1 schema: " + told.format(1),
        "box/b.yaml:2:8 vars.x: " + told.format(2),
        "box/b.yaml:2:14 vars.same: " + told.format(2),
        "box/b.yaml:4:3 apps.web: " + told.format(4),
    ]


def test_files_of_a_directory_may_share_a_base(tmp_path: Path) -> None:
    files = {
        "base.yaml": "vars: {x: 1}\napps: {agent: {version: 1, run: {command: [x]}}}",
        "box/a.yaml": "extends: [../base.yaml]\napps: {a: {version: 1, run: {command: [x]}}}",
        "box/b.yaml": "extends: [../base.yaml]\napps: {b: {version: 1, run: {command: [x]}}}",
    }
    assert sorted(read(tmp_path, files, "box").apps) == ["a", "agent", "b"]
    files["box/b.yaml"] += "\nvars: {x: 2}"
    assert len(mistakes(tmp_path, files, "box")) == 1


def test_an_empty_directory_says_so(tmp_path: Path) -> None:
    told = ["box is a directory without a .yaml, .yml or .json file"]
    assert mistakes(tmp_path, {"box/readme.md": ""}, "box") == told


@pytest.mark.parametrize(
    "files",
    [
        {"state.yaml": "extends: [" + ", ".join(f"{n}.yaml" for n in range(120)) + "]"}
        | {f"{n}.yaml": "vars: {a: b}" for n in range(120)},
        {"state.yaml": "extends: [a.yaml, b.yaml, c.yaml, d.yaml, e.yaml]"}
        | {f"{c}.yaml": "# " + "x" * 1_000_000 for c in "abcde"},
        {"state.yaml": "extends: [a.yaml, b.yaml, c.yaml]"}
        | {f"{c}.yaml": "vars: [" + "a, " * 45_000 + "]" for c in "abc"},
    ],
    ids=["files", "bytes", "values"],
)
def test_many_files_end_at_a_bound(tmp_path: Path, files: dict[str, str]) -> None:
    assert any("more than" in line for line in mistakes(tmp_path, files))


def test_merging_itself_is_bounded(tmp_path: Path) -> None:
    many = ", ".join(f"k{n}: v" for n in range(2000))
    files = {f"{layer}-{n}.yaml": f"vars: {{{many}}}" for layer in range(1) for n in range(15)}
    for layer in range(1, 5):
        bases = ", ".join(f"{layer - 1}-{n}.yaml" for n in range(15))
        files |= {f"{layer}-{n}.yaml": f"extends: [{bases}]" for n in range(15)}
    files["state.yaml"] = "extends: [" + ", ".join(f"4-{n}.yaml" for n in range(15)) + "]"
    assert mistakes(tmp_path, files)[0].endswith("merging takes more than 200000 steps")


_patches = st.recursive(
    st.none() | st.sampled_from(["x", "y"]) | st.lists(st.sampled_from(["x", "y"]), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


def _rfc7396(target: object, patch: object) -> object:
    """The pseudo code of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _rfc7396(result.get(name), value)
    return result


@given(base=_patches, patch=_patches)
@settings(deadline=None, max_examples=60)
def test_merging_is_that_of_rfc_7396(
    tmp_path_factory: pytest.TempPathFactory, base: object, patch: object
) -> None:
    import json

    tree = tmp_path_factory.mktemp("merge")
    assert isinstance(patch, dict)
    write(tree, {"base.json": json.dumps(base), "state.json": json.dumps({"extends": "base.json", **patch})})
    problems = Problems()
    document = read_state(Tree(tree), "", problems)
    assert document is not None
    assert not problems
    assert plain(document.root) == _rfc7396(base, patch)
    assert mark_at(document.root, ()).file == "state.json"
