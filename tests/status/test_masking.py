"""Secrets are kept out of text, and text without them stays as it is."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.mask import MOST, SHORTEST, Masker, mask_urls


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://bob:pw@host/x", "https://***@host/x"),
        ("https://token@host:8443/x y http://a:b@c", "https://***@host:8443/x y http://***@c"),
        ("https://host/x?access_token=abc&y=1", "https://host/x?access_token=***&y=1"),
        ("https://s3/x?X-Amz-Signature=ff0&a=b", "https://s3/x?X-Amz-Signature=***&a=b"),
        ("https://host/path@2x.png", "https://host/path@2x.png"),
        ("mail bob@example.com", "mail bob@example.com"),
        ("a=b&key=c", "a=b&key=***"),
        ("monkey=c", "monkey=c"),
    ],
)
def test_credentials_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked


def test_a_value_is_masked_as_it_stands_by_line_and_as_urls_quote_it() -> None:
    masker = Masker()
    masker.add(b"pass word/1\nsecond line\n")
    assert masker.text("x pass word/1 y") == "x *** y"
    assert masker.text("second line") == "***"
    assert masker.text("q=pass%20word%2F1 q=pass+word%2F1") == "q=*** q=***"


def test_a_value_is_masked_as_json_and_base64_write_it() -> None:
    masker = Masker()
    masker.add('say "ö" to\nnobody')
    for written in (r"say \"\u00f6\" to", r"say \"ö\" to", b64encode('say "ö" to\nnobody'.encode()).decode()):
        assert masker.text(f"<{written}>").rstrip("=>") == "<***"


def test_of_values_that_come_and_go_the_newest_stay_masked() -> None:
    masker = Masker()
    masker.add("in use all the time", *(f"short-lived-{number}." for number in range(MOST // 2)))
    masker.add("in use all the time")
    masker.add(*(f"short-lived-{number}." for number in range(MOST // 2, MOST - 100)))
    assert masker.text(f"in use all the time, short-lived-{MOST - 101}.") == "***, ***"
    assert masker.text("short-lived-0.") == "short-lived-0."


def test_the_longer_of_two_values_wins() -> None:
    masker = Masker()
    masker.add("secret", "secret-and-more")
    assert masker.text("secret-and-more") == "***"


def test_values_too_short_to_be_secrets_are_left() -> None:
    masker = Masker()
    masker.add("a", "abc", "")
    assert masker.text("abc a") == "abc a"


def test_data_is_masked_in_depth_and_keeps_its_shape() -> None:
    masker = Masker()
    masker.add("hunter2")
    data: Any = {"hunter2": [("hunter2", 1, None, True, 2.5)], "b": {"c": "x hunter2"}}
    assert masker.data(data) == {"hunter2": [["***", 1, None, True, 2.5]], "b": {"c": "x ***"}}


@given(st.text(min_size=SHORTEST, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_no_registered_value_survives(secret: str, before: str, after: str) -> None:
    masker = Masker()
    masker.add(secret)
    form = secret.strip()
    if len(form) >= SHORTEST and form not in "***" and form not in before + "***" + after:
        assert form not in masker.text(f"{before}{form}{after}")


@given(st.text(max_size=200))
def test_masked_text_can_be_masked_again(text: str) -> None:
    once = mask_urls(text)
    assert mask_urls(once) == once
    json.dumps(once)
