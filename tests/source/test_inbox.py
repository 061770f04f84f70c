"""Triggers become syncs: one waits, one runs, the newest commit wins, nothing is lost."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.domain.events import Bus, Event, SyncFinished, TriggerHeard
from agent.domain.model import SyncResult, Trigger, TriggerKind
from agent.source.inbox import LISTED, REMEMBERED, PendingSync, TriggerInbox
from tests.kit.forges import commit


def push(number: int) -> Trigger:
    return Trigger(TriggerKind.PUSH, commit(number), f"push {number}")


OPERATOR = Trigger(TriggerKind.OPERATOR, None, "somebody")


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def facts(bus: Bus) -> list[Event]:
    heard: list[Event] = []
    bus.subscribe(heard.append)
    return heard


@pytest.fixture
def inbox(bus: Bus) -> TriggerInbox:
    return TriggerInbox(bus)


def end(sync: str, result: SyncResult = SyncResult.SUCCEEDED) -> SyncFinished:
    return SyncFinished(sync, result)


async def soon(inbox: TriggerInbox, not_before: float = 0.0) -> PendingSync:
    async with asyncio.timeout(10):
        return await inbox.take(not_before=not_before)


async def settled() -> None:
    """Let every task that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_trigger_that_finds_a_waiting_sync_joins_it(inbox: TriggerInbox) -> None:
    first, second = inbox.offer(push(1)), inbox.offer(push(2))
    assert (first.merged, second.merged) == (False, True)
    assert first.sync == second.sync == inbox.pending
    taken = await soon(inbox)
    assert (taken.sync, taken.count, taken.announced) == (first.sync, 2, commit(2))
    assert [trigger.detail for trigger in taken.triggers] == ["push 1", "push 2"]


async def test_a_trigger_during_a_sync_makes_the_next_one(inbox: TriggerInbox) -> None:
    first = inbox.offer(push(1))
    await soon(inbox)
    assert (inbox.running, inbox.pending) == (first.sync, None)
    second = inbox.offer(push(2))
    assert second.sync != first.sync
    assert not second.merged
    assert (inbox.running, inbox.pending) == (first.sync, second.sync)


async def test_the_commit_announced_last_wins_and_a_wish_without_one_does_not_take_it_away(
    inbox: TriggerInbox,
) -> None:
    for trigger in (push(1), push(2), OPERATOR):
        inbox.offer(trigger)
    taken = await soon(inbox)
    assert taken.announced == commit(2)
    assert taken.by_operator


async def test_a_flood_is_counted_and_does_not_crowd_out_an_operator(inbox: TriggerInbox) -> None:
    inbox.offer(push(0))
    inbox.offer(OPERATOR)
    for number in range(1000):
        inbox.offer(push(number))
    taken = await soon(inbox)
    assert taken.count == 1002
    assert len(taken.triggers) == LISTED
    assert taken.by_operator
    assert taken.triggers[-1].detail == "push 999"


async def test_a_flood_of_operators_is_bounded_too(inbox: TriggerInbox) -> None:
    for _ in range(200):
        inbox.offer(OPERATOR)
    assert len((await soon(inbox)).triggers) == LISTED


async def test_take_waits_until_there_is_something(inbox: TriggerInbox) -> None:
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(soon(inbox))
        await settled()
        assert not taking.done()
        accepted = inbox.offer(push(1))
        assert (await taking).sync == accepted.sync


async def test_take_does_not_come_before_its_time_but_merges_what_comes_until_then(
    inbox: TriggerInbox,
) -> None:
    inbox.offer(push(1))
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(soon(inbox, time.monotonic() + 0.1))
        await settled()
        assert not taking.done()
        inbox.offer(push(2))
        taken = await taking
    assert (taken.count, taken.announced) == (2, commit(2))


async def test_an_operator_does_not_wait_for_that_time(inbox: TriggerInbox) -> None:
    inbox.offer(push(1))
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(soon(inbox, time.monotonic() + 3600))
        await settled()
        assert not taking.done()
        inbox.offer(OPERATOR)
        assert (await taking).by_operator
    inbox.offer(push(2))
    async with asyncio.TaskGroup() as group:  # and the hurry is over with that sync
        taking = group.create_task(soon(inbox, time.monotonic() + 3600))
        await settled()
        assert not taking.done()
        taking.cancel()


async def test_a_cancelled_take_loses_nothing(inbox: TriggerInbox) -> None:
    async with asyncio.TaskGroup() as group:
        for not_before in (0.0, time.monotonic() + 3600):
            taking = group.create_task(soon(inbox, not_before))
            await settled()
            accepted = inbox.offer(push(1))
            taking.cancel()
            await asyncio.wait([taking])
            assert inbox.pending == accepted.sync
    assert (await soon(inbox)).sync == accepted.sync


async def test_two_takers_never_get_the_same_sync(inbox: TriggerInbox) -> None:
    async with asyncio.TaskGroup() as group:
        takers = [group.create_task(soon(inbox)) for _ in range(2)]
        await settled()
        inbox.offer(push(1))
        await settled()
        inbox.offer(push(2))
    assert len({taker.result().sync for taker in takers}) == 2


async def test_everybody_who_waits_for_a_sync_is_told_how_it_ended(inbox: TriggerInbox) -> None:
    sync = inbox.offer(push(1)).sync
    ended = end(sync)
    async with asyncio.TaskGroup() as group:
        before = group.create_task(inbox.wait(sync, 10))
        await settled()
        await soon(inbox)
        during = [group.create_task(inbox.wait(sync, 10)) for _ in range(3)]
        await settled()
        inbox.finished(ended)
    assert {id(task.result()) for task in (before, *during)} == {id(ended)}
    assert await inbox.wait(sync, 10) is ended


async def test_wait_gives_up_at_its_deadline(inbox: TriggerInbox) -> None:
    assert await inbox.wait(inbox.offer(push(1)).sync, 0.01) is None


async def test_wait_for_an_unknown_sync_ends_at_once(inbox: TriggerInbox) -> None:
    assert await inbox.wait("sync-unknown", 3600) is None


async def test_the_last_thousand_ends_are_remembered(inbox: TriggerInbox) -> None:
    for number in range(REMEMBERED + 1):
        inbox.finished(end(f"sync-{number}"))
    assert await inbox.wait("sync-0", 3600) is None
    assert await inbox.wait("sync-1", 3600) is not None
    assert await inbox.wait(f"sync-{REMEMBERED}", 3600) is not None


async def test_syncs_may_overlap_and_end_in_any_order(inbox: TriggerInbox) -> None:
    """A newer commit supersedes the runs of an older sync, which is then still open."""
    first = inbox.offer(push(1)).sync
    await soon(inbox)
    second = inbox.offer(push(2)).sync
    await soon(inbox)
    running = [inbox.running]
    assert inbox.announces(commit(1))
    inbox.finished(end(second))
    running.append(inbox.running)
    inbox.finished(end(first, SyncResult.SUPERSEDED))
    running.append(inbox.running)
    assert running == [second, first, None]
    assert not inbox.announces(commit(1))


async def test_a_sync_that_ends_untaken_waits_no_longer(inbox: TriggerInbox) -> None:
    sync = inbox.offer(push(1)).sync
    inbox.finished(end(sync, SyncResult.INTERRUPTED))
    assert inbox.pending is None
    assert inbox.offer(push(2)).sync != sync


async def test_every_trigger_is_published_with_its_verdict(inbox: TriggerInbox, facts: list[Event]) -> None:
    sync = inbox.offer(push(1)).sync
    inbox.offer(OPERATOR)
    told = [(f.kind, f.verdict, f.sync, f.detail) for f in facts if isinstance(f, TriggerHeard)]
    assert told == [
        (TriggerKind.PUSH, "accepted", sync, "push 1"),
        (TriggerKind.OPERATOR, "merged", sync, "somebody"),
    ]


class InboxModel(RuleBasedStateMachine):
    """Any order of offers, takes and ends, against the plainest description of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.inbox = TriggerInbox(Bus())
        self.waiting: list[int] = []
        self.open: dict[str, str] = {}
        self.offered = 0
        self.counted = 0

    @rule()
    def offer(self) -> None:
        self.offered += 1
        accepted = self.inbox.offer(push(self.offered))
        assert accepted.merged == bool(self.waiting)
        self.waiting.append(self.offered)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        taken = self.loop.run_until_complete(soon(self.inbox))
        assert taken.announced == commit(self.waiting[-1])
        assert taken.count == len(self.waiting)
        self.counted += taken.count
        self.open[taken.sync] = commit(self.waiting[-1])
        self.waiting.clear()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        sync = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[sync]
        self.inbox.finished(end(sync))
        ended = self.loop.run_until_complete(self.inbox.wait(sync, 10))
        assert ended is not None
        assert ended.sync == sync

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.offered == self.counted + len(self.waiting)
        assert (self.inbox.pending is not None) == bool(self.waiting)
        assert self.inbox.running == next(reversed(self.open), None)
        assert all(self.inbox.announces(c) for c in self.open.values())

    def teardown(self) -> None:
        self.loop.close()


TestAnyOrder = InboxModel.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
