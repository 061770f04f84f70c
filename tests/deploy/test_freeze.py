"""Freeze windows: when they are, in which time zone, and what follows from their end."""

from __future__ import annotations

import asyncio
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.freezer import Freezer
from agent.domain.cron import CronInvalid
from agent.domain.events import Bus, ConditionChanged, Event
from agent.domain.freeze import FreezeSpec, check, frozen, next_change
from agent.domain.model import TriggerKind
from agent.source.inbox import TriggerInbox

BERLIN = ZoneInfo("Europe/Berlin")
WEEKEND = FreezeSpec(cron="0 22 * * 5", duration=60 * 3600.0, time_zone="Europe/Berlin", reason="weekend")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("now", "within"),
    [
        ("2026-11-20 21:59:59", False),
        ("2026-11-20 22:00:00", True),
        ("2026-11-22 12:00:00", True),
        ("2026-11-23 09:59:59", True),
        ("2026-11-23 10:00:00", False),
        ("2026-11-25 12:00:00", False),
        ("2026-07-04 03:00:00", True),  # in summer time, too
    ],
)
def test_a_window_begins_by_its_cron_and_lasts_for_its_duration(now: str, within: bool) -> None:
    found = frozen([WEEKEND], at(now))
    assert (found is not None) == within
    if found is not None:
        assert found.reason == "weekend"
        assert str(found).startswith("frozen until 2026-")


def test_of_several_windows_the_one_that_ends_last_is_told() -> None:
    short = FreezeSpec(cron="0 * * * *", duration=600.0, reason="short")
    found = frozen([short, WEEKEND], at("2026-11-21 12:05:00"))
    assert found is not None
    assert found.reason == "weekend"
    assert next_change([short, WEEKEND], at("2026-11-21 12:05:00")) == at("2026-11-21 13:00:00")
    assert next_change([WEEKEND], at("2026-11-21 12:00:00")) == found.until


def test_windows_that_follow_one_another_are_one() -> None:
    always = FreezeSpec(cron="* * * * *", duration=120.0)
    for now in (at("2026-11-21 12:05:00"), at("2026-11-21 12:05:59.9")):
        assert frozen([always], now) is not None


def test_a_cron_that_never_comes_freezes_nothing() -> None:
    never = FreezeSpec(cron="0 0 30 2 *", duration=60.0)
    try:
        check(never)
    except CronInvalid:
        return
    assert frozen([never], at("2026-11-21 12:00:00")) is None
    assert next_change([never], at("2026-11-21 12:00:00")) is None


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("nonsense", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("", "UTC", "cron"),
        ("0 0 * * *", "Europe/Atlantis", "time_zone"),
        ("0 0 * * *", "../../etc/passwd", "time_zone"),
        ("0 0 * * *", "", "time_zone"),
        ("0 0 * * *", "\0", "time_zone"),
    ],
)
def test_what_is_no_window_is_refused_by_its_field(cron: str, zone: str, field: str) -> None:
    with pytest.raises(CronInvalid) as caught:
        check(FreezeSpec(cron=cron, duration=60.0, time_zone=zone))
    assert caught.value.field == field


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.integers(1, 6 * 24 * 60),
    st.floats(1_700_000_000, 1_900_000_000),
)
def test_the_next_change_is_when_it_changes(minute: int, hour: int, length: int, now: float) -> None:
    window = [FreezeSpec(cron=f"{minute} {hour} * * 1", duration=length * 60.0)]
    change = next_change(window, now)
    assert change is not None
    assert change > now
    before, after = frozen(window, change - 0.5), frozen(window, change + 0.5)
    assert (before is None) != (after is None)


async def test_at_the_end_of_a_window_it_is_told_and_looked_again() -> None:
    bus, facts = Bus(), list[Event]()
    bus.subscribe(facts.append)
    inbox = TriggerInbox(bus)
    loop = asyncio.get_running_loop()
    began = loop.time()
    base = at("2026-11-23 10:00:00") - 0.1
    freezer = Freezer(inbox, bus, lambda: base + loop.time() - began)
    try:
        freezer.follow((WEEKEND,))
        assert freezer.now() is not None
        async with asyncio.timeout(30):
            pending = await inbox.take()
        assert [trigger.kind for trigger in pending.triggers] == [TriggerKind.SCHEDULE]
        assert freezer.now() is None
        told = [
            (str(fact.condition.status), fact.condition.reason)
            for fact in facts
            if isinstance(fact, ConditionChanged)
        ]
        assert told == [("True", "FreezeWindow"), ("False", "FreezeEnded")]
    finally:
        freezer.close()


async def test_a_window_that_is_taken_out_of_the_state_is_over() -> None:
    bus, facts = Bus(), list[Event]()
    bus.subscribe(facts.append)
    inbox = TriggerInbox(bus)
    freezer = Freezer(inbox, bus, lambda: at("2026-11-21 12:00:00"))
    freezer.follow((WEEKEND,))
    freezer.follow(())
    assert freezer.now() is None
    assert len([fact for fact in facts if isinstance(fact, ConditionChanged)]) == 2
    freezer.close()
