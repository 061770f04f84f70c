from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import OperatorNeeded
from agent.source.git.address import mask, parse


def test_user_and_password_are_used_and_not_shown() -> None:
    address = parse("https://ada:s%40cret@git.example:8443/org/state.git/")
    assert address.login == ("ada", "s@cret")
    assert address.shown == "https://git.example:8443/org/state.git"
    assert "cret" not in repr(address)


def test_a_file_url_is_a_local_path() -> None:
    assert parse("file:///srv/my%20state.git").path == "/srv/my state.git"
    assert parse("file://localhost/srv/state").path == "/srv/state"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://git@example.org/x",
        "git@example.org:x/y",
        "ftp://example.org/x",
        "file://other/x",
        "file:relative",
        "http://",
        "http://a:notaport/x",
        "https://u:hunter2@example.org/x?token=hunter2",
        "https://u:hunter2@[::1/x",
        "",
    ],
)
def test_what_cannot_be_used_is_refused_without_quoting_secrets(url: str) -> None:
    with pytest.raises(OperatorNeeded) as caught:
        parse(url)
    assert caught.value.reason == "RepositoryUrl"
    assert "hunter2" not in str(caught.value)


def test_refusing_ssh_says_that_it_is_not_yet_supported() -> None:
    for url in ("ssh://git@example.org/x", "git@example.org:x/y"):
        with pytest.raises(OperatorNeeded, match="not yet supported"):
            parse(url)


@given(st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    mask(text)
    try:
        parse(text)
    except OperatorNeeded:
        pass


@given(st.from_regex(r"[a-z0-9]{8,12}", fullmatch=True))
def test_masking_keeps_host_and_path_only(secret: str) -> None:
    assert secret not in mask(f"https://u{secret}:p{secret}@h.example/x?{secret}#{secret}")
