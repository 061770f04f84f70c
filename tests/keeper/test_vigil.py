"""An agent that does not answer is killed; a machine that slept or is busy is no reason to."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from agent.keeper import vigil


class Stage:
    """A keeper's parts that the vigil uses, with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watchdog: float = 0.0) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.signals: list[int] = []
        self.asked = 0
        self._timers: dict[str, tuple[float, Any]] = {}
        self.link = SimpleNamespace(
            greeted=True, unanswered=0, silent_since=self.now, send=self._send, kill=self.signals.append
        )
        self.keeper: Any = SimpleNamespace(
            manager=SimpleNamespace(watchdog=watchdog, alive=lambda: None),
            link=self.link,
            outlets=SimpleNamespace(say=self.said.append),
            reactor=SimpleNamespace(at=self._at),
            deaths=SimpleNamespace(unborn=0),
        )
        monkeypatch.setattr(vigil, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _send(self, message: dict[str, str]) -> None:
        assert message == {"event": "ping"}
        self.asked += 1

    def _at(self, name: str, delay: float, call: Any) -> None:
        self._timers[name] = (self.now + delay, call)

    def turn(self, late: float = 0.0) -> None:
        """Let the next timer come, so many seconds late."""
        name = min(self._timers, key=lambda each: self._timers[each][0])
        due, call = self._timers.pop(name)
        self.now = max(self.now, due + late)
        call()

    def answer(self) -> None:
        """The agent says something."""
        self.link.unanswered = 0


def test_an_agent_that_answers_is_asked_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    vigil.watch(stage.keeper)
    for _ in range(20):
        stage.answer()
        stage.turn()
    assert stage.asked == 21
    assert stage.now - 1000.0 == 20 * vigil.PING
    assert not stage.signals


def test_an_agent_that_falls_silent_is_asked_again_soon_and_then_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    vigil.watch(stage.keeper)
    while not stage.signals:
        stage.turn()
    assert stage.asked == vigil.UNANSWERED_MAX
    assert stage.said == ["the agent has not answered for 25 s: killing it"]
    stage.turn()
    assert stage.signals == [signal.SIGUSR2, signal.SIGKILL]


def test_a_slow_agent_may_answer_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    vigil.watch(stage.keeper)
    for _ in range(10):
        for _ in range(vigil.UNANSWERED_MAX - 1):
            stage.turn()
        stage.answer()
    assert not stage.signals


def test_silence_does_not_count_while_the_keeper_itself_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    vigil.watch(stage.keeper)
    for _ in range(50):  # suspended, stopped as a whole, or starved: again and again
        stage.turn(late=vigil.LATE + 1.0)
    assert not stage.signals


@pytest.mark.parametrize(("unborn", "times"), [(0, 1), (1, 2), (2, 4), (1000, 32)])
def test_an_agent_that_never_says_a_word_is_killed_in_the_end_and_each_next_one_has_longer(
    unborn: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(monkeypatch)
    stage.link.greeted, stage.keeper.deaths.unborn = False, unborn
    vigil.watch(stage.keeper)
    while not stage.signals:
        stage.turn()
    assert 0 <= stage.now - 1000.0 - times * vigil.BIRTH_DEADLINE < vigil.PING
    assert stage.asked == 0
