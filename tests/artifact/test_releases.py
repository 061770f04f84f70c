from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.artifact.archive.unpack import Form
from agent.artifact.release import packing, release_id
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from tests.artifact.specs import spec

TAR = "https://releases.example/web-1.0.tar.gz?x=1"
PLAIN = "https://releases.example/web-linux-amd64"


def test_an_id_begins_with_the_digest_and_names_a_directory() -> None:
    wanted = spec(TAR, b"x")
    release = release_id(wanted, "web")
    assert release.startswith(wanted.checksum.hex[:12] + "-")
    assert Store(Path("/store")).path(release) == Path("/store/trees") / release


def test_apps_that_share_an_archive_share_its_release() -> None:
    assert release_id(spec(TAR, b"x"), "web") == release_id(spec(TAR, b"x"), "worker")
    mirror = TAR.replace("releases", "mirror")
    assert release_id(spec(TAR, b"x"), "web") == release_id(spec(mirror, b"x"), "web")
    assert release_id(spec(PLAIN, b"x", archive="tar"), "a") == release_id(spec(TAR, b"x"), "b")


def test_whatever_changes_the_tree_changes_the_id() -> None:
    ids = {
        release_id(spec(TAR, b"x"), "web"),
        release_id(spec(TAR, b"y"), "web"),
        release_id(spec(TAR, b"x", strip=1), "web"),
        release_id(spec(TAR, b"x", archive="none"), "web"),
        release_id(spec(PLAIN, b"x"), "web"),
        release_id(spec(PLAIN, b"x"), "worker"),
        release_id(spec(PLAIN, b"x", name="sbin/web"), "web"),
    }
    assert len(ids) == 7


def test_the_case_of_a_digest_does_not_matter() -> None:
    lower = spec(TAR, b"x")
    upper = msgspec.structs.replace(
        lower, checksum=msgspec.structs.replace(lower.checksum, hex=lower.checksum.hex.upper())
    )
    assert release_id(lower, "web") == release_id(upper, "web")


def test_an_id_needs_a_digest() -> None:
    with pytest.raises(ValueError, match="not pinned"):
        release_id(spec(TAR), "web")
    for text in ("../" * 21 + "x", "0" * 63, "g" * 64):
        with pytest.raises(ValueError, match="is no sha256 digest"):
            release_id(ArtifactSpec(url=TAR, checksum=Checksum(algorithm="sha256", hex=text)), "web")


@pytest.mark.parametrize(
    ("url", "archive", "form"),
    [
        (TAR, "auto", Form.ARCHIVE),
        ("file:///x/web.tgz", "auto", Form.ARCHIVE),
        ("file:///x/web.tar", "auto", Form.ARCHIVE),
        (PLAIN, "auto", Form.AUTO),
        (TAR, "none", Form.PLAIN),
        (PLAIN, "tar.gz", Form.TAR_GZ),
        ("http://[broken", "auto", Form.AUTO),
    ],
)
def test_the_form_follows_from_what_is_said_and_from_the_name(url: str, archive: str, form: Form) -> None:
    assert packing(spec(url, b"x", archive=archive), "web").form is form
