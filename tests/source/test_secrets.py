"""Secrets: what the settings allow, what a state gets, and that nothing quotes them."""

from __future__ import annotations

import os
from pathlib import Path

import pyrage
import pytest

from agent.kit.mask import secrets as masker
from agent.source.desired import HostView, load, validate
from agent.source.secrets import SecretFault, SecretReader

APP = """
apps:
  web:
    version: "1"
    run: {command: [bin/web]}
    secrets: {TOKEN: {file: token}}
    env: {URL: "https://u:{{ secrets.TOKEN }}@db"}
    files:
      - {content: "token={{ secrets.TOKEN }}", target: secret.conf}
      - {content: "plain", target: plain.conf}
      - {content: "{{ secrets.TOKEN }}", target: open.conf, mode: "0640"}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir()
    (path / "token").write_text("hunter2-of-the-file\n")
    return path


def state(tmp_path: Path, text: str = APP) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "state.yaml").write_text(text)
    return tree


def test_a_secret_is_a_variable_and_fills_env_and_files(tmp_path: Path, root: Path) -> None:
    view = HostView("box", secrets=SecretReader("salt", roots=[root]))
    web = load(state(tmp_path), "", view).apps["web"]
    assert web.secrets == {"TOKEN": "hunter2-of-the-file"}
    assert web.env == {"URL": "https://u:hunter2-of-the-file@db"}
    assert [(f.content, f.mode) for f in web.files] == [
        (b"token=hunter2-of-the-file", 0o600),
        (b"plain", 0o640),
        (b"hunter2-of-the-file", 0o640),
    ]
    assert masker.text("it is hunter2-of-the-file") == "it is ***"


def test_a_secret_fills_the_headers_of_an_artifact(tmp_path: Path, root: Path) -> None:
    artifact = f"""
    artifact:
      url: https://releases.example/web
      checksum: sha256:{"ab" * 32}
      headers: {{PRIVATE-TOKEN: "{{{{ secrets.TOKEN }}}}", Accept-Language: en}}
"""
    view = HostView("box", secrets=SecretReader("salt", roots=[root]))
    text = APP.replace("    secrets:", f"{artifact.lstrip(chr(10))}    secrets:")
    mistakes = validate(state(tmp_path, text), "", view)
    assert "is set by the agent" in str(mistakes[0])
    text = text.replace(", Accept-Language: en", "")
    web = load(state(tmp_path, text), "", view).apps["web"]
    assert web.artifact is not None
    assert web.artifact.headers == {"PRIVATE-TOKEN": "hunter2-of-the-file"}


def test_a_secret_that_changed_makes_another_specification(tmp_path: Path, root: Path) -> None:
    reader = SecretReader("salt", roots=[root])
    before = load(state(tmp_path), "", HostView("box", secrets=reader)).apps["web"]
    (root / "token").write_text("another-one-now")
    after = load(state(tmp_path), "", HostView("box", secrets=reader.anew())).apps["web"]
    assert before.digest != after.digest
    assert before.files_digest != after.files_digest


def test_digests_that_are_shown_cannot_be_tried_out_elsewhere(tmp_path: Path, root: Path) -> None:
    specs = [
        load(state(tmp_path), "", HostView("box", secrets=SecretReader(salt, roots=[root]))).apps["web"]
        for salt in ("one", "other")
    ]
    assert specs[0].digest != specs[1].digest
    assert specs[0].files_digest != specs[1].files_digest


def test_a_state_is_checked_away_from_its_host_without_reading_a_secret(tmp_path: Path) -> None:
    assert validate(state(tmp_path), "", HostView("laptop")) == []


def test_a_secret_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path, root: Path) -> None:
    text = APP.replace("file: token", "file: missing")
    loaded = load(state(tmp_path, text), "", HostView("box", secrets=SecretReader(roots=[root])))
    assert loaded.apps == {}
    told = loaded.refused["web"]
    assert (told.reason, told.where) == ("SecretMissing", "state.yaml:6 apps.web.secrets.TOKEN.file")
    assert f"missing is not there below {root}" in told.message


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "link", "directory", "."])
def test_no_file_outside_the_roots_is_read(tmp_path: Path, root: Path, name: str) -> None:
    (tmp_path / "outside").write_text("not for apps")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "directory").mkdir()
    with pytest.raises(SecretFault) as caught:
        SecretReader(roots=[root]).file(name)
    assert "not for apps" not in str(caught.value)


def test_a_link_within_a_root_is_followed_as_kubernetes_makes_them(root: Path) -> None:
    reader = SecretReader(roots=[root])
    for turn in ("first", "second"):
        (root / f"..{turn}").mkdir()
        (root / f"..{turn}" / "db").write_text(f"the-{turn}-password")
        (root / "..tmp").symlink_to(f"..{turn}")
        os.rename(root / "..tmp", root / "..data")
        if turn == "first":
            (root / "db").symlink_to("..data/db")
        else:
            assert reader.changed() == ["file db"]
            reader = reader.anew()
        assert reader.read("file", "db") == f"the-{turn}-password"
        assert reader.changed() == []


def test_the_first_root_that_has_it_counts_and_one_before_it_may_appear(tmp_path: Path, root: Path) -> None:
    first = tmp_path / "first"
    reader = SecretReader(roots=[first, root])
    assert reader.read("file", "token") == "hunter2-of-the-file"
    assert reader.changed() == []
    first.mkdir()
    (first / "token").write_text("of-the-first")
    assert reader.changed() == ["file token"]
    assert reader.anew().read("file", "token") == "of-the-first"


def test_only_variables_that_are_given_away_are_read() -> None:
    reader = SecretReader(
        names=["GIVEN", "UNSET"], environ={"GIVEN": "given-away", "AWS_SECRET": "kept-back"}
    )
    assert reader.env("GIVEN") == "given-away"
    for name, words in (("AWS_SECRET", "--secret-env"), ("UNSET", "not set")):
        with pytest.raises(SecretFault, match=words) as caught:
            reader.env(name)
        assert "kept-back" not in str(caught.value)


@pytest.mark.parametrize("armored", [False, True])
def test_what_age_encrypted_in_the_repository_is_decrypted(tmp_path: Path, armored: bool) -> None:
    key, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    identity = tmp_path / "key"
    identity.write_text(f"# public key: {key.to_public()}\n{key}\n")
    reader = SecretReader(identity=identity)
    data = pyrage.encrypt(b"sealed-in-git", [key.to_public()], armored=armored)
    tree = state(tmp_path, APP.replace("file: token", "age: token.age"))
    (tree / "token.age").write_bytes(data)
    assert load(tree, "", HostView("box", secrets=reader)).apps["web"].secrets == {"TOKEN": "sealed-in-git"}
    identity.write_text(f"{other}\n")
    for wrong in (data, b"", b"nonsense"):
        with pytest.raises(SecretFault, match="cannot be decrypted"):
            reader.age(wrong)
    identity.write_text("AGE-SECRET-KEY-1NONSENSE\n")
    with pytest.raises(SecretFault, match="--age-identity") as caught:
        reader.age(data)
    assert "NONSENSE" not in str(caught.value)
    with pytest.raises(SecretFault, match="--age-identity"):
        SecretReader().age(data)


def test_only_programs_of_the_settings_are_run(tmp_path: Path) -> None:
    def program(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    programs = {
        "vault": program("vault", "echo from-the-vault"),
        "broken": program("broken", "echo half-a-secret; exit 3"),
        "gone": tmp_path / "gone",
    }
    reader = SecretReader(programs=programs)
    assert reader.exec("vault") == "from-the-vault"
    for name, words in (("broken", "code 3"), ("gone", "cannot be run"), ("other", "--secret-exec")):
        with pytest.raises(SecretFault, match=words) as caught:
            reader.exec(name)
        assert "half" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8"), (b"a\0b", "zero"), (b"x" * 70_000, "larger")],
)
def test_what_is_no_text_for_a_program_is_refused(root: Path, content: bytes, words: str) -> None:
    (root / "odd").write_bytes(content)
    with pytest.raises(SecretFault, match=words):
        SecretReader(roots=[root]).file("odd")
