"""Which rule an artifact falls under, however its address is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.artifact.trust.rules import Rules, check
from agent.domain.errors import Permanent
from agent.settings_values import parse_signature_rule

ALL, HOST, WEB, OCI = (Path(name) for name in ("all", "host", "web", "oci"))
RULES = Rules(
    [
        ("*", ALL),
        ("releases.example", HOST),
        ("https://releases.example/web/", WEB),
        ("https://releases.example/web/free/", None),
        ("oci://registry.example/team/", OCI),
        ("[::1]:5000", HOST),
        ("file:///srv/", None),
    ]
)


def key_of(url: str) -> Path | None:
    rule = RULES.find(url)
    return rule.files[0] if rule is not None else None


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://elsewhere.example/a", ALL),
        ("https://releases.example.evil.example/web/a", ALL),
        ("https://evil.example/releases.example", ALL),
        ("https://releases.example@evil.example/web/a", ALL),
        ("https://releases.example/a", HOST),
        ("http://releases.example/web/a", HOST),
        ("https://releases.example:8443/web/a", HOST),
        ("https://releases.example/webby/a", HOST),
        ("https://releases.example/web/a", WEB),
        ("HTTPS://Releases.Example.:443//web/./a", WEB),
        ("https://user:word@releases.example/%77eb/a?x=/web/free/", WEB),
        ("https://releases.example/web/free/a", None),
        ("https://releases.example/web/freedom", WEB),
        ("oci://registry.example/team/app:1", OCI),
        ("oci://registry.example/team/app@sha256:00", OCI),
        ("oci://registry.example/other/app:1", ALL),
        ("http://[::1]:5000/a", HOST),
        ("http://[::1]/a", ALL),
        ("file:///srv/a", None),
        ("file://localhost/srv/a", None),
        ("file:///srvr/a", ALL),
        ("s3://bucket/a", ALL),
    ],
)
def test_the_longest_beginning_that_fits_decides(url: str, key: Path | None) -> None:
    assert key_of(url) == key


@pytest.mark.parametrize(
    "url",
    [
        "https://releases.example/web/free/../../x",
        "https://releases.example/web/free/%2e%2e/x",
        "https://releases.example/web/free/%2e%2e%2fx",
        "https://releases.example/web/free\\..\\x",
        "https://releases.example:999999/x",
    ],
)
def test_an_address_that_may_mean_two_things_is_refused(url: str) -> None:
    with pytest.raises(Permanent) as caught:
        RULES.find(url)
    assert caught.value.reason == "UrlInvalid"


@given(st.lists(st.sampled_from(["", ".", "a", "%2e", "web", "free", "%2F", "%66ree", "x y"]), max_size=6))
def test_what_is_lifted_for_a_part_is_lifted_for_nothing_outside(parts: list[str]) -> None:
    url = "https://releases.example/" + "/".join(parts)
    if key_of(url) is None:
        plain = "/".join(parts).replace("%2F", "/").replace("%2e", ".").replace("%66", "f").split("/")
        assert [part for part in plain if part not in ("", ".")][:2] == ["web", "free"]


def test_without_rules_nothing_is_asked_for() -> None:
    assert Rules().find("https://releases.example/../x") is None


def test_files_with_one_beginning_are_one_rule() -> None:
    rule = Rules([("*", WEB), ("*", HOST)]).find("https://a.example/b")
    assert rule is not None
    assert rule.files == (WEB, HOST)


@pytest.mark.parametrize(
    "text",
    ["*", "*=", "=x", "https://h=x", "https://h/../=x", "h/x=y", "https://u@h/=x", "h h=x", "https://h/?q=x"],
)
def test_a_rule_that_says_nothing_clear_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_signature_rule(text)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("*=/k", ("*", Path("/k"))),
        ("h=none", ("h", None)),
        ("[::1]:5000=/k", ("[::1]:5000", Path("/k"))),
        ("https://h:1/a/=/k", ("https://h:1/a/", Path("/k"))),
        ("file:///srv/=none", ("file:///srv/", None)),
    ],
)
def test_rules_are_read(text: str, parsed: tuple[str, Path | None]) -> None:
    assert parse_signature_rule(text) == parsed


def test_the_doctor_says_which_file_of_keys_is_of_no_use(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "broken").write_text("ada@example.org ssh-ed25519 AAAA")
    (tmp_path / "late").write_text(
        "ada@example.org valid-before=20200101 ssh-ed25519 "
        "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
    )
    found = check(
        [("*", keys), ("h", tmp_path / "gone"), ("i", tmp_path / "broken"), ("j", tmp_path / "late")]
    )
    assert [(path.name, count) for path, _, count in found] == [
        ("release.pub", 1), ("gone", 0), ("broken", 0), ("late", 0)
    ]  # fmt: skip
    assert [bool(wrong) for _, wrong, _ in found] == [False, True, True, True]
