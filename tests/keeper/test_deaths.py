"""What the keeper remembers of agents that ended before their time."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

from agent.keeper.link import Deaths
from agent.keeper.wire import MAKES_WAY


def link(*, greeted: bool = True, hung: bool = False) -> Any:
    return SimpleNamespace(greeted=greeted, hung=hung)


def test_deaths_are_counted_and_the_last_one_is_told() -> None:
    deaths = Deaths()
    assert deaths.record() == {"count": 0, "how": "", "at": 0.0}
    assert deaths.add(link(), -signal.SIGKILL) == "signal 9"
    assert deaths.add(link(), 1) == "exit code 1"
    told = deaths.record()
    assert (told["count"], told["how"], told["at"] > 0) == (2, "exit code 1", True)
    deaths.add(link(hung=True), -signal.SIGKILL)
    assert (deaths.record()["count"], deaths.record()["how"]) == (3, "silence")


def test_one_that_makes_way_for_the_next_has_not_died() -> None:
    deaths = Deaths()
    assert deaths.add(link(), MAKES_WAY) == "exit code 3"
    assert deaths.record()["count"] == 0


def test_those_that_never_said_a_word_are_counted_until_one_does() -> None:
    deaths = Deaths()
    for _ in range(3):
        deaths.add(link(greeted=False, hung=True), -signal.SIGKILL)
    assert deaths.unborn == 3
    deaths.add(link(), 1)
    assert deaths.unborn == 0
