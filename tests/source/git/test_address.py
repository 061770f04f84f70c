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
        "ssh://git:hunter2@example.org/x",
        "ssh://example.org/",
        "ssh://-oProxyCommand=x@example.org/x",
        "ssh://-oProxyCommand=x/y",
        "-oProxyCommand=x:y",
        "git@example.org:-x",
        "git@example.org:",
        "git@example.org://x",
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


@pytest.mark.parametrize(
    ("url", "user", "host", "port", "path"),
    [
        ("ssh://git@example.org/org/state.git", "git", "example.org", 22, "/org/state.git"),
        ("ssh://example.org:2222/x", "git", "example.org", 2222, "/x"),
        ("ssh://ada@[::1]:2222/~ada/x", "ada", "::1", 2222, "~ada/x"),
        ("git@example.org:org/state.git", "git", "example.org", 22, "org/state.git"),
        ("example.org:/srv/x y", "git", "example.org", 22, "/srv/x y"),
        ("ada@[::1]:x", "ada", "::1", 22, "x"),
    ],
)
def test_both_ways_of_writing_an_ssh_address(url: str, user: str, host: str, port: int, path: str) -> None:
    address = parse(url)
    assert (address.scheme, address.user, address.host) == ("ssh", user, host)
    assert (address.port, address.path) == (port, path)


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
