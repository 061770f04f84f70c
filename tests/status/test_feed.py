"""Facts for listeners: numbered, replayed, bounded."""

from __future__ import annotations

import json

import pytest

from agent.domain import events as facts
from agent.domain.model import RunResult
from agent.status import feed as feeds
from agent.status.feed import Feed, Listening, Told, TooManyListeners
from tests.kit.scenes import PROBE_FAILED, Stage, pair, plan


async def drain(listening: Listening, count: int) -> list[Told]:
    told = [await listening.get() for _ in range(count)]
    return [t for t in told if t is not None]


def paused(feed: Feed, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        feed.tell(facts.PauseChanged(str(number)))


async def test_a_listener_hears_what_happens_from_now_on() -> None:
    feed = Feed("e")
    paused(feed, 3)
    with feed.listen() as listening:
        paused(feed, 2, 3)
        heard = await drain(listening, 2)
    assert [(t.id, t.name, t.data["message"]) for t in heard] == [
        ("e-4", "PauseChanged", "3"),
        ("e-5", "PauseChanged", "4"),
    ]
    assert feed.listeners == 0


async def test_a_listener_that_comes_back_gets_what_it_missed() -> None:
    feed = Feed("e")
    paused(feed, 5)
    with feed.listen("e-3") as listening:
        assert [t.id for t in await drain(listening, 2)] == ["e-4", "e-5"]


@pytest.mark.parametrize("last", ["other-3", "", "e", "e-", "e-x", "e--1", "e-" + "9" * 50, "e-²"])
async def test_an_id_of_another_life_or_of_no_kind_gets_all_there_is(last: str) -> None:
    feed = Feed("e")
    paused(feed, 3)
    with feed.listen(last) as listening:
        assert len(await drain(listening, 3)) == 3


async def test_a_future_id_gets_nothing_old() -> None:
    feed = Feed("e")
    paused(feed, 3)
    with feed.listen("e-99") as listening:
        paused(feed, 1, 3)
        assert [t.id for t in await drain(listening, 1)] == ["e-4"]


async def test_only_the_newest_facts_are_kept() -> None:
    feed = Feed("e")
    paused(feed, feeds.KEPT + 50)
    with feed.listen("e-1") as listening:
        heard = await drain(listening, feeds.KEPT)
    assert heard[0].id == "e-51"
    assert heard[-1].id == f"e-{feeds.KEPT + 50}"


async def test_progress_is_told_now_and_then_and_never_replayed() -> None:
    feed = Feed("e")
    with feed.listen() as listening:
        for done in range(100):
            feed.tell(facts.StepProgress("r", "web", "fetch", done, 1000, at=100.0 + done / 100))
        feed.tell(facts.StepProgress("r", "web", "fetch", 1000, 1000, at=100.995))
        feed.tell(facts.RunFinished("r", "s", "web", RunResult.SUCCEEDED, 1.0))
        heard = []
        while (told := await listening.get()) is not None and told.id == "":
            heard.append(told.data["done"])
    assert 9 <= len(heard) <= 12
    assert heard[-1] == 1000
    with feed.listen("e-0") as listening:
        assert [t.name for t in await drain(listening, 1)] == ["RunFinished"]


async def test_a_listener_that_does_not_keep_up_is_let_go() -> None:
    feed = Feed("e")
    with feed.listen() as slow:
        paused(feed, feeds.WAITING_MAX + 1)
        assert feed.listeners == 0
        heard = []
        while (told := await slow.get()) is not None:
            heard.append(told.id)
    assert heard[-1] == f"e-{feeds.WAITING_MAX}"


async def test_places_for_listeners_are_limited_and_come_free() -> None:
    feed = Feed("e")
    everyone = [feed.listen() for _ in range(feeds.LISTENERS_MAX)]
    with pytest.raises(TooManyListeners):
        feed.listen()
    feed.leave(everyone[0])
    feed.leave(feed.listen())


async def test_closing_ends_every_listener_and_lets_nobody_in() -> None:
    feed = Feed("e")
    with feed.listen() as listening:
        feed.close()
        assert await listening.get() is None
    with pytest.raises(TooManyListeners):
        feed.listen()


def test_facts_carry_no_log_lines_and_no_options() -> None:
    stage = Stage()
    steps = plan("fetch")
    stage.tell(
        facts.RunStarted("r", "s", "web", "why", steps),
        facts.ChildExited("web", "c", 1, None, False, ("a secret line",)),
        facts.AppFailed("web", PROBE_FAILED),
    )
    text = json.dumps([told.data for told in stage.board.feed._ring])
    assert "a secret line" not in text
    assert "DATABASE_URL" not in text
    assert "options" not in text
    assert "ProbeFailed" in text


def test_every_kind_of_fact_can_be_told_as_json() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    sync = stage.begin_sync()
    run = stage.begin_run("web", pair("1.5.0"), sync)
    stage.rolled_back("web", run, sync, pair("1.4.0"), PROBE_FAILED)
    for told in stage.board.feed._ring:
        assert json.loads(json.dumps(told.data))["at"].endswith("Z")
