"""`emptybox validate` on real directories, as a CI job of a state repository would call it."""

import json
from pathlib import Path

import pytest

from agent.cli.exit_codes import FAILED, OK, USAGE
from tests.cli.stage import run_here

GOOD = """\
schema: 1
apps:
  web:
    version: 1.4.0
    artifact:
      url: https://releases.example/web-{{ version }}.tar.gz
      checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    run: {command: [bin/web]}
"""
BAD = GOOD.replace("checksum:", "chekcsum:").replace("command: [bin/web]", "command: [bin/web], user: 1 2")
ONLY = (
    GOOD
    + """\
  worker:
    only: {env: [prod]}
    version: 2.0.0
    artifact:
      url: https://releases.example/{{ vars.missing }}.tar.gz
      checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    run: {command: [bin/worker]}
"""
)


def state(directory: Path, text: str, name: str = "state.yaml") -> Path:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_valid_state_names_its_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state(tmp_path, GOOD)
    answer = run_here("validate", str(tmp_path))
    assert (answer.code, answer.out, answer.err) == (OK, "valid: web 1.4.0\n", "")
    monkeypatch.chdir(tmp_path)
    assert run_here("validate").out == answer.out, "the directory one stands in is the default"


def test_every_mistake_is_a_line_with_its_place(tmp_path: Path) -> None:
    answer = run_here("validate", str(state(tmp_path, BAD)))
    assert answer.code == FAILED
    first = answer.out.splitlines()[0]
    assert first == "state.yaml:7:7 apps.web.artifact.chekcsum: unknown key, did you mean checksum?"
    found = json.loads(run_here("validate", "--json", str(tmp_path)).out)
    assert found["valid"] is False
    assert found["problems"][0]["text"] == first
    assert (found["problems"][0]["line"], found["problems"][0]["column"]) == (7, 7)


def test_labels_choose_one_view_and_all_looks_at_every_one(tmp_path: Path) -> None:
    state(tmp_path, ONLY)
    assert run_here("validate", str(tmp_path), "--label", "env=test").code == OK
    chosen = run_here("validate", str(tmp_path), "--label", "env=prod")
    assert chosen.code == FAILED
    assert "apps.worker.artifact.url" in chosen.out
    every = run_here("validate", str(tmp_path), "--all")
    assert (every.code, every.out) == (FAILED, chosen.out)


def test_all_counts_the_kinds_of_hosts(tmp_path: Path) -> None:
    state(tmp_path, GOOD.replace("    version", "    only: {env: [a, b], role: web}\n    version"))
    answer = run_here("validate", str(tmp_path), "--all")
    assert answer.out == "valid (2 kinds of hosts): web 1.4.0\n"
    assert run_here("validate", str(tmp_path)).out == "valid: no apps\n"


def test_a_file_deep_in_a_repository_is_read_from_the_repositorys_root(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    state(tmp_path, GOOD, "base.yaml")
    file = state(
        tmp_path, "schema: 1\nextends: ../base.yaml\napps: {web: {version: 1.5.0}}\n", "prod/my.yaml"
    )
    assert run_here("validate", str(file)).out == "valid: web 1.5.0\n"
    assert run_here("validate", str(file.parent)).out == "valid: web 1.5.0\n", "a directory of state files"
    assert run_here("validate", str(tmp_path), "--path", "prod/my.yaml").out == "valid: web 1.5.0\n"


def test_a_repository_without_a_state_is_invalid(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    answer = run_here("validate", str(tmp_path))
    assert answer.code == FAILED
    assert "state.yaml is not there" in answer.out


def test_a_path_or_label_that_is_none_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert run_here("validate", str(tmp_path / "nowhere")).code == USAGE
    state(tmp_path, GOOD)
    answer = run_here("validate", str(tmp_path), "--label", "env")
    assert answer.code == USAGE
    assert "'env' is not NAME=VALUE" in answer.err


def test_the_json_schema_describes_the_state_file() -> None:
    schema = json.loads(run_here("validate", "--schema").out)
    assert "apps" in json.dumps(schema)
    assert "$schema" in schema
