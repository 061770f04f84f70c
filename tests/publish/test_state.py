"""A release is written into a state as it lies: version, URL and checksum, as the agent reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.publish.state import Change, Release, write_release
from agent.publish.trouble import Trouble

OLD, NEW = "a" * 64, "b" * 64
URL = "https://releases.example/web-2.0.tar"
STATE = f"""\
# What runs where. Ask ops before you touch ports!
schema: 1
vars: {{greeting: hello, digest: {OLD}}}   # shown on the page
apps:
  web:
    version:  1.0            # raised by CI
    artifact:
      url: "https://releases.example/web-{{{{ version }}}}.tar"
      checksum: 'sha256:{OLD}'

    run: {{command: [bin/web]}}

  other:
    version: 1.0
    artifact: {{url: "https://releases.example/other.tar", checksum: "sha256:{OLD}"}}
    run: {{command: [bin/other]}}
"""


def write(
    tree: Path, text: str, *, file: str = "state.yaml", path: str = "", **more: str
) -> tuple[str, list[Change]]:
    """The file's text after a release of web 2.0 was written into it, and what changed."""
    place = tree / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text.encode())
    release = {"app": "web", "version": "2.0", "url": URL, "sha256": NEW, **more}
    changes = write_release(tree, path, Release(**release))
    return place.read_bytes().decode(), changes


def test_a_url_that_its_template_makes_right_stays_as_it_is(tmp_path: Path) -> None:
    after, changes = write(tmp_path, STATE)
    assert after == STATE.replace(" 1.0            #", " 2.0            #").replace(
        f"'sha256:{OLD}'", f"'sha256:{NEW}'"
    )
    assert [(c.file, c.key, c.before, c.after) for c in changes] == [
        ("state.yaml", "apps.web.version", "1.0", "2.0"),
        ("state.yaml", "apps.web.artifact.checksum", f"sha256:{OLD}", f"sha256:{NEW}"),
    ]
    again, none = write(tmp_path, after)
    assert (again, none) == (after, [])


def test_a_url_that_would_be_another_is_written_out(tmp_path: Path) -> None:
    after, changes = write(tmp_path, STATE, url="s3://bucket/web.tar")
    assert '      url: "s3://bucket/web.tar"\n' in after
    assert len(changes) == 3


def test_a_checksum_by_platform_changes_that_platforms_alone(tmp_path: Path) -> None:
    text = STATE.replace(f"'sha256:{OLD}'", f"{{linux-amd64: sha256:{OLD}, linux-arm64: sha256:{OLD}}}")
    text = text.replace("}}.tar", "}}-{{ arch }}-{{ machine }}.tar")
    url = "https://releases.example/web-2.0-arm64-aarch64.tar"
    after, _ = write(tmp_path, text, url=url, platform="linux-arm64")
    assert f"{{linux-amd64: sha256:{OLD}, linux-arm64: sha256:{NEW}}}" in after
    assert "{{ arch }}" in after
    with pytest.raises(Trouble, match="--platform"):
        write(tmp_path, text, url=url)
    with pytest.raises(Trouble, match="no checksum for linux-riscv64"):
        write(tmp_path, text, url=url, platform="linux-riscv64")


def test_a_checksum_file_beside_the_artifact_needs_no_edit_and_another_is_refused(tmp_path: Path) -> None:
    text = STATE.replace(f"'sha256:{OLD}'", '"sha256:https://releases.example/web-{{ version }}.tar.sha256"')
    _, changes = write(tmp_path, text)
    assert [change.key for change in changes] == ["apps.web.version"]
    with pytest.raises(Trouble, match="is not what was published"):
        write(tmp_path, text.replace("tar.sha256", "SUMS"))


@pytest.mark.parametrize("checksum", [True, False])
def test_an_image_is_named_by_tag_and_digest_or_by_both(tmp_path: Path, checksum: bool) -> None:
    text = re.sub(r'url: "https.*web-.*"', f"url: oci://reg.example/web:1.0@sha256:{OLD}", STATE)
    if not checksum:
        text = text.replace(f"      checksum: 'sha256:{OLD}'\n", "")
    after, _ = write(tmp_path, text, url="oci://reg.example/web:2.0")
    assert f"url: oci://reg.example/web:2.0@sha256:{NEW}\n" in after
    assert (f"checksum: 'sha256:{NEW}'" in after) == checksum
    tagged = (
        text.replace(f"1.0@sha256:{OLD}", "{{ version }}")
        .replace("url: oci", 'url: "oci')
        .replace("}}\n", '}}"\n', 1)
    )
    if checksum:
        after, _ = write(tmp_path, tagged, url="oci://reg.example/web:2.0")
        assert 'url: "oci://reg.example/web:{{ version }}"' in after


def test_the_flat_form_has_names_of_its_own(tmp_path: Path) -> None:
    url = "https://releases.example/web-{{ version }}.tar"
    text = f'{{\n\t"version": "1.0",\n\t"distro-url": "{url}",\n\t"vars": {{}}\n}}\n'
    after, _ = write(tmp_path, text, file="state.json", app="app")
    assert after == text.replace("1.0", "2.0")
    with_checksum = text.replace('"vars"', f'"checksum": "sha256:{OLD}", "vars"')
    after, _ = write(tmp_path, with_checksum, file="state.json", app="app")
    assert json.loads(after)["checksum"] == f"sha256:{NEW}"
    with pytest.raises(Trouble, match="say --app app"):
        write(tmp_path, text, file="state.json")


def test_a_directory_of_files_is_edited_where_the_app_stands(tmp_path: Path) -> None:
    (tmp_path / "prod").mkdir()
    (tmp_path / "prod/a.yaml").write_text("schema: 1\n")
    after, changes = write(tmp_path, STATE, file="prod/web.yaml", path="prod")
    assert changes[0].file == "prod/web.yaml"
    assert f"'sha256:{NEW}'" in after
    assert (tmp_path / "prod/a.yaml").read_text() == "schema: 1\n"


def test_what_others_extend_is_not_touched_unless_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "prod.yaml").write_text("extends: [base.yaml]\n")
    with pytest.raises(Trouble, match=r"stands in base.yaml.*--path base.yaml"):
        write(tmp_path, STATE, file="base.yaml", path="prod.yaml")
    (tmp_path / "prod.yaml").write_text(
        f"extends: [base.yaml]\napps: {{web: {{version: 1.0, artifact: {{checksum: 'sha256:{OLD}'}}}}}}\n"
    )
    after, changes = write(tmp_path, STATE, file="base.yaml", path="prod.yaml")
    assert after == STATE
    assert {change.file for change in changes} == {"prod.yaml"}


def test_a_signature_of_other_bytes_is_not_kept(tmp_path: Path) -> None:
    def signed(words: str) -> str:
        return STATE.replace("\n\n    run", f"\n      signature: {{{words}}}\n    run", 1)

    key = "minisign: RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
    for fine in (key, f'{key}, url: "https://h.example/{{{{ version }}}}.minisig"'):
        write(tmp_path, signed(fine))
    for old in (f"{key}, text: abc", f"{key}, url: https://h.example/web.minisig"):
        with pytest.raises(Trouble, match="one release's alone"):
            write(tmp_path, signed(old))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (f"'sha256:{OLD}'", "'sha256:{{ vars.digest }}'", "made by a template"),
        ("    version:  1.0            # raised by CI\n", "", "is not valid"),
        ("run: {command: [bin/web]}", "runs: {}", "is not valid: .*runs"),
        ("  web:", "  site:", "no app web"),
        ("schema: 1", "schema: [", "is not valid"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(Trouble, match=words):
        write(tmp_path, STATE.replace(old, new))


def test_a_file_reached_by_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "state.yaml").symlink_to("real.yaml")
    with pytest.raises(Trouble, match="symbolic link"):
        write(tmp_path, STATE, file="real.yaml")
    assert (tmp_path / "real.yaml").read_text() == STATE


def test_labels_that_only_some_hosts_have_are_looked_at_too(tmp_path: Path) -> None:
    text = STATE.replace("    version:  1.0 ", "    only: {env: prod}\n    version:  1.0 ")
    after, _ = write(tmp_path, text)
    assert f"'sha256:{NEW}'" in after
