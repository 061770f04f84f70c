from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.artifact.checksum import find
from agent.domain.errors import Permanent

URL = "https://releases.example/v1/linux/web-1.0.tar.gz?token=secret"
WHERE = "https://releases.example/v1/SHA256SUMS"
ONE, TWO, THREE = (hashlib.sha256(bytes([n])).hexdigest() for n in range(3))
LONG = hashlib.sha512(b"x").hexdigest()


def look(listing: str, algorithm: str = "sha256", url: str = URL) -> str:
    return find(listing.encode(), algorithm, url, WHERE)


@pytest.mark.parametrize(
    "line",
    [
        f"{ONE}  web-1.0.tar.gz",
        f"{ONE} *web-1.0.tar.gz",
        f"{ONE} ?web-1.0.tar.gz",
        f"{ONE}\tweb-1.0.tar.gz",
        f"{ONE.upper()}  web-1.0.tar.gz",
        f"{ONE}  ./web-1.0.tar.gz",
        f"{ONE}  linux/web-1.0.tar.gz",
        f"{ONE}  ./v1/linux/web-1.0.tar.gz",
        f"{ONE}  /v1/linux/web-1.0.tar.gz",
        f"{ONE}  dist/web-1.0.tar.gz",
        f"SHA256 (web-1.0.tar.gz) = {ONE}",
        f"SHA256 (linux/web-1.0.tar.gz) = {ONE}",
        f"SHA256(web-1.0.tar.gz)= {ONE}",
        f"SHA2-256(web-1.0.tar.gz)= {ONE}",
        ONE,
        f"{ONE}\r",
    ],
)
def test_a_digest_is_found_in_every_common_form(line: str) -> None:
    assert look(line) == ONE
    assert look(f"# made by CI\n\n{line}\n") == ONE
    if line.strip() != ONE:
        assert look(f"{TWO}  other.tar.gz\n{line}\nSHA256 (third) = {THREE}\n") == ONE


def test_lines_of_other_algorithms_are_passed_over() -> None:
    listing = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

{hashlib.md5(b"").hexdigest()}  web-1.0.tar.gz
{LONG}  web-1.0.tar.gz
SHA512 (web-1.0.tar.gz) = {LONG}
MD5 (web-1.0.tar.gz) = {hashlib.md5(b"").hexdigest()}
{ONE}  web-1.0.tar.gz
-----BEGIN PGP SIGNATURE-----
"""
    assert look(listing) == ONE
    assert look(listing, "sha512") == LONG


def test_the_line_that_agrees_with_most_of_the_path_counts() -> None:
    listing = f"{TWO}  web-1.0.tar.gz\n{ONE}  linux/web-1.0.tar.gz\n{THREE}  darwin/web-1.0.tar.gz\n"
    assert look(listing) == ONE


def test_a_name_with_blanks_matches_only_itself() -> None:
    listing = f"{TWO}  some web-1.0.tar.gz\n{THREE}  web-1.0.tar.gz copy\n"
    with pytest.raises(Permanent, match=r"no sha256 line for web-1\.0\.tar\.gz"):
        look(listing)
    assert look(listing, url="https://x.example/some%20web-1.0.tar.gz") == TWO


def test_two_answers_are_no_answer() -> None:
    with pytest.raises(Permanent) as caught:
        look(f"{ONE}  a/web-1.0.tar.gz\n{TWO}  b/web-1.0.tar.gz\n")
    assert caught.value.reason == "ChecksumAmbiguous"
    assert look(f"{ONE}  a/web-1.0.tar.gz\n{ONE}  b/web-1.0.tar.gz\n") == ONE


@pytest.mark.parametrize(
    "listing", ["", "\n", "<html>", f"{ONE}  other", f"{ONE}\n{TWO}\n", ONE[:-1], f"{ONE}0"]
)
def test_a_missing_line_is_named_and_no_secret_of_the_url_is(listing: str) -> None:
    with pytest.raises(Permanent) as caught:
        look(listing)
    assert caught.value.reason == "ChecksumMissing"
    assert "web-1.0.tar.gz" in str(caught.value)
    assert WHERE in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ["sha256sum"],
        ["sha256sum", "--binary"],
        ["sha256sum", "--tag"],
        ["sha512sum"],
        ["sha1sum"],
        ["md5sum"],
    ],
)
def test_what_coreutils_write_is_read(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip("coreutils are missing")
    for name in ("web-1.0.tar.gz", "with blank", "other"):
        (tmp_path / name).write_text(name)
    listing = subprocess.run(
        [*command, "./web-1.0.tar.gz", "with blank", "other"], cwd=tmp_path, capture_output=True
    )
    for name in ("web-1.0.tar.gz", "with blank", "other"):
        url = f"file:///srv/{name.replace(' ', '%20')}"
        kind = command[0].removesuffix("sum")
        assert look(listing.stdout.decode(), kind, url) == hashlib.new(kind, name.encode()).hexdigest()


@given(st.binary(max_size=400), st.sampled_from(["sha256", "sha512"]))
def test_any_bytes_give_a_digest_or_a_permanent_failure(listing: bytes, algorithm: str) -> None:
    try:
        digest = find(listing, algorithm, URL, WHERE)
    except Permanent:
        return
    assert set(digest) <= set("0123456789abcdef")


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20).filter(
    lambda name: not set(name) & set("/?*#%\\") and name not in (".", "..")
)


@given(st.dictionaries(NAMES, st.sampled_from([ONE, TWO, THREE]), min_size=1), st.booleans(), st.data())
def test_every_listed_name_gives_its_own_digest(
    names: dict[str, str], bsd: bool, data: st.DataObject
) -> None:
    lines = [f"SHA256 ({n}) = {d}" if bsd else f"{d}  {n}" for n, d in names.items()]
    wanted = data.draw(st.sampled_from(sorted(names)))
    assert find("\n".join(lines).encode(), "sha256", f"https://x.example/{wanted}", WHERE) == names[wanted]
