"""When it is tried again: soon at first, and within five minutes, unless a registry asks for more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.retries import HEEDED, pause


def test_a_server_that_comes_back_after_hours_is_asked_within_five_minutes() -> None:
    assert [pause(failures) for failures in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert pause(10_000) == 300


@pytest.mark.parametrize(("asked", "seconds"), [(None, 10), (1.0, 10), (60.0, 60), (86_400.0, 300)])
def test_what_the_other_side_asks_for_is_heard_within_bounds(asked: float | None, seconds: float) -> None:
    assert pause(2, asked) == seconds


def test_a_registry_that_limits_requests_by_the_hour_is_left_alone_for_that_long() -> None:
    assert pause(2, 1800.0, HEEDED) == 1800
    assert pause(2, 86_400.0, HEEDED) == 3600


@given(st.integers(1, 10**9), st.one_of(st.none(), st.floats(0, 1e9)))
def test_it_is_always_tried_again_and_never_at_once(failures: int, asked: float | None) -> None:
    assert 5 <= pause(failures, asked) <= 300
