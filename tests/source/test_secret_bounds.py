"""What no state gets as a secret, where no secret may stand, and programs that misbehave."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.config import Settings
from agent.source.desired import HostView, StateInvalid, load
from agent.source.secret_program import SIZE_MAX, ProgramFailed, ask
from agent.source.secrets import PLATFORM, SecretFault, SecretReader, secret_reader
from tests.source.state_files import with_lines, write


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def settings(directory: Path, **own: Path) -> Settings:
    (directory / "root").mkdir()
    (directory / "data").mkdir()
    return Settings(data=directory / "data", secret_roots=(directory / "root",), **own)  # type: ignore[arg-type]


def host(root: Path) -> HostView:
    (root / "a").write_text("hunter2")
    return HostView("box", secrets=SecretReader("salt", roots=[root]))


# -- what is nobody's ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["git-token", "link", "same", "deep/er"])
def test_no_root_gives_out_what_the_agents_settings_name(tmp_path: Path, name: str) -> None:
    own = tmp_path / "root" / "git-token"
    chosen = settings(tmp_path, credentials_file=own, control_token_file=tmp_path / "root" / "deep" / "er")
    (own.parent / "deep").mkdir()
    (own.parent / "deep" / "er").write_text("the agent's own")
    own.write_text("the agent's own")
    os.link(own, own.parent / "same")
    (own.parent / "link").symlink_to("git-token")
    (own.parent / "other").write_text("for apps")
    reader = secret_reader(chosen, "salt")
    assert reader.file("other") == "for apps"
    with pytest.raises(SecretFault, match="belongs to the agent") as caught:
        reader.file(name)
    assert caught.value.reason == "SecretNotAllowed"


def test_a_root_above_the_data_directory_does_not_give_that_out(tmp_path: Path) -> None:
    (tmp_path / "data" / "apps").mkdir(parents=True)
    (tmp_path / "data" / "apps" / "spec").write_text("with secrets of all apps")
    reader = secret_reader(Settings(data=tmp_path / "data", secret_roots=(tmp_path,)), "salt")
    with pytest.raises(SecretFault, match="belongs to the agent"):
        reader.file("data/apps/spec")


def test_the_platforms_directories_below_the_default_root_are_not_given_out() -> None:
    """The token of a pod's service account lies there."""
    reader = secret_reader(Settings(), "salt")
    with pytest.raises(SecretFault, match=f"directly in {PLATFORM}") as caught:
        reader.file("kubernetes.io/serviceaccount/token")
    assert caught.value.reason == "SecretNotAllowed"


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SecretFault, match="not a regular file"):
        SecretReader(roots=[tmp_path]).file("pipe")


# -- where no secret may stand ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        "hooks: {init: [x, '{{ secrets.A }}']}",
        "tasks: {t: {command: ['{{ secrets.A }}']}}",
        "migrate: {command: ['{{ secrets.A }}']}",
        "artifact: {url: 'https://h/{{ secrets.A }}', checksum: 'sha256:" + "a" * 64 + "'}",
        "files: [{content: x, target: '{{ secrets.A }}'}]",
        "files: [{content: x, target: x, check: ['{{ secrets.A }}']}]",
        "health: {exec: ['{{ secrets.A }}']}",
    ],
)
def test_nothing_that_everybody_may_see_can_hold_a_secret(tmp_path: Path, lines: str) -> None:
    tree = write(tmp_path / "tree", {"state.yaml": with_lines(f"secrets: {{A: {{file: a}}}}\n{lines}")})
    with pytest.raises(StateInvalid) as caught:
        load(tree, "", host(tmp_path))
    (problem,) = caught.value.problems
    assert "in env, files, migrate.database and the headers" in str(problem)
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    "text",
    [
        "{{ secrets.A }}",
        "{{ secrets.A | upper }}",
        "{% for _, s in secrets.items() %}{{ s }}{% endfor %}",
        "{% if secrets.A == vars.x %}{% endif %}",
    ],
)
def test_a_file_knows_that_it_was_made_of_secrets(tmp_path: Path, text: str) -> None:
    """Whatever a template makes of them."""
    two = f"[{{content: '{text}', target: x}}, {{content: y, target: y}}]"
    lines = f"secrets: {{A: {{file: a}}}}\nfiles: {two}"
    tree = write(tmp_path / "tree", {"state.yaml": "vars: {x: y}\n" + with_lines(lines)})
    files = load(tree, "", host(tmp_path)).apps["web"].files
    assert [(file.secret, file.mode) for file in files] == [(True, 0o600), (False, 0o640)]


def test_a_file_with_secrets_is_not_for_everybody(tmp_path: Path) -> None:
    lines = "secrets: {A: {file: a}}\nfiles: [{content: '{{ secrets.A }}', target: x, mode: '0644'}]"
    tree = write(tmp_path / "tree", {"state.yaml": with_lines(lines)})
    with pytest.raises(StateInvalid, match="nobody but its user and group"):
        load(tree, "", host(tmp_path))


def test_files_that_are_placed_may_hold_secrets_too(tmp_path: Path) -> None:
    text = (
        "apps: {conf: {version: 1, place: /srv/x, secrets: {A: {file: a}},"
        " files: [{content: '{{ secrets.A }}', target: x}]}}"
    )
    spec = load(write(tmp_path / "tree", {"state.yaml": text}), "", host(tmp_path)).apps["conf"]
    assert (spec.files[0].content, spec.files[0].mode, spec.salt) == (b"hunter2", 0o600, "salt")


# -- programs -----------------------------------------------------------------------------------------


def test_a_program_that_hangs_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(ProgramFailed, match="did not end"):
        ask(program(tmp_path / "slow", f"sleep 1000 & echo $! > {note}; wait"), 2.0)
    state = Path(f"/proc/{int(note.read_text())}/stat")
    until = time.monotonic() + 30.0
    while not (ended := _ended(state)) and time.monotonic() < until:  # it was killed, which takes a moment
        time.sleep(0.01)
    assert ended


def _ended(state: Path) -> bool:
    try:
        return state.read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_program_that_prints_without_end_is_cut(tmp_path: Path) -> None:
    endless = program(tmp_path / "endless", "while :; do echo xxxxxxxxxxxxxxxx; done")
    assert len(ask(endless, 30.0)) == SIZE_MAX + 1


def test_a_program_is_asked_once_a_look_and_heard_again_when_its_time_comes(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    count = program(tmp_path / "count", f"echo x >> {asked}; wc -l < {asked}")
    reader = SecretReader(programs={"count": count})
    assert reader.read("exec", "count") == reader.read("exec", "count")
    assert reader.changed(programs=False) == []
    assert reader.changed() == ["exec count"]


def test_a_secret_that_is_being_written_counts_as_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    reader = SecretReader(roots=[tmp_path])
    reader.read("file", "a")
    (tmp_path / "a").write_text("")
    assert reader.changed() == []
    (tmp_path / "a").write_text("second")
    assert reader.changed() == ["file a"] == reader.changed()


def test_a_secret_that_was_missing_is_noticed(tmp_path: Path) -> None:
    reader = SecretReader(roots=[tmp_path])
    with pytest.raises(SecretFault):
        reader.read("file", "a")
    assert reader.changed() == []
    (tmp_path / "a").write_text("there at last")
    assert reader.changed() == ["file a"]
