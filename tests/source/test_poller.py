"""Polling: when it looks, what it makes of what it finds, and how it takes failures."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import pytest

from agent.domain.errors import OperatorNeeded, Transient
from agent.domain.events import Bus, ConditionChanged, Event, PollScheduled, PushMissed, TriggerHeard
from agent.domain.model import Trigger, TriggerKind
from agent.source.inbox import TriggerInbox
from agent.source.poller import LONGEST_BACKOFF, Poller, rest_until
from tests.kit.forges import commit

NEVER = 3600.0


class World:
    """A poller whose time passes at once: its rests are recorded, and it ends with its script of looks.

    `script` holds what each look finds: a number is a commit, an exception is raised.
    """

    def __init__(
        self,
        script: Iterable[int | BaseException],
        *,
        interval: float = 60.0,
        webhooks: bool = True,
        known: int | None = 0,
        chance: float = 0.5,
    ) -> None:
        self.script = deque(script)
        self.now = 1_000_000.0
        self.rests: list[float] = []
        self.pushed: list[str] = []
        self.known = commit(known) if known is not None else None
        self.bus = Bus()
        self.facts: list[Event] = []
        self.bus.subscribe(self.facts.append)
        self.inbox = TriggerInbox(self.bus)
        self.over = asyncio.Event()
        self.poller = Poller(
            self.look,
            self.inbox,
            self.bus,
            interval,
            lambda: self.known,
            self if webhooks else None,
            rest=self.rest,
            clock=lambda: self.now,
            chance=lambda: chance,
        )

    @property
    def pushes(self) -> int:
        return len(self.pushed)

    def announced(self, commit: str) -> bool:
        return commit in self.pushed

    async def look(self) -> str:
        found = self.script.popleft()
        if isinstance(found, BaseException):
            raise found
        return commit(found)

    async def rest(self, poked: asyncio.Event, seconds: float) -> None:
        self.rests.append(seconds)
        if not self.script:
            self.over.set()
            await rest_until(poked, NEVER)
        self.now += seconds

    async def play(self) -> None:
        """Run the poller until its script is over."""
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(self.poller.run())
            await self.over.wait()
            running.cancel()

    def all(self, kind: type[Event]) -> list[Event]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    @property
    def conditions(self) -> list[tuple[str, str, str]]:
        return [
            (fact.condition.type, str(fact.condition.status), fact.condition.reason)
            for fact in self.facts
            if isinstance(fact, ConditionChanged)
        ]

    @property
    def missed(self) -> list[str]:
        return [fact.commit for fact in self.facts if isinstance(fact, PushMissed)]

    @property
    def triggers(self) -> list[TriggerKind]:
        return [fact.kind for fact in self.facts if isinstance(fact, TriggerHeard)]


async def test_a_poll_that_finds_the_known_commit_offers_nothing() -> None:
    world = World([0, 0, 0])
    await world.play()
    assert world.triggers == []
    assert world.inbox.pending is None


async def test_a_new_commit_is_offered_once_while_its_sync_waits_or_runs() -> None:
    world = World([1, 1, 1])
    await world.play()
    assert world.triggers == [TriggerKind.POLL]
    pending = await world.inbox.take()
    assert pending.announced == commit(1)
    world.script, world.over = deque([1]), asyncio.Event()
    await world.play()
    assert world.triggers == [TriggerKind.POLL]


async def test_a_commit_that_a_push_announced_is_not_offered_again() -> None:
    world = World([1])
    world.inbox.offer(Trigger(TriggerKind.PUSH, commit(1)))
    await world.play()
    assert world.triggers == [TriggerKind.PUSH]


async def test_the_first_commit_ever_found_is_offered_but_was_not_missed() -> None:
    world = World([1, 1, 1], known=None)
    await world.play()
    assert world.triggers == [TriggerKind.POLL]
    assert world.missed == []


async def test_a_commit_that_no_webhook_announced_is_counted_as_missed_once() -> None:
    world = World([1, 1, 1, 1])
    await world.play()
    assert world.missed == [commit(1)]


async def test_a_webhook_that_comes_a_little_later_than_the_poll_was_not_missed() -> None:
    world = World([1, 1, 1], interval=2.0)
    looks: list[int] = []
    look = world.look

    async def and_then_a_push() -> str:
        found = await look()
        looks.append(1)
        if len(looks) == 1:
            world.pushed.append(commit(1))
        return found

    world.poller._look = and_then_a_push
    await world.play()
    assert world.triggers == [TriggerKind.POLL]
    assert world.missed == []


async def test_missed_pushes_are_warned_about_once_and_make_polling_faster_until_one_is_heard() -> None:
    world = World([0, 1, 1, 2, 2, 2, 3, 3, 3])
    look, before = world.look, [commit(0)]

    async def then_webhooks_work_again() -> str:
        world.known = before.pop()
        before.append(await look())
        if before[0] == commit(3) and commit(3) not in world.pushed:
            world.pushed.append(commit(3))
        return before[0]

    world.poller._look = then_webhooks_work_again
    await world.play()
    told = [(fact.commit, fact.again) for fact in world.facts if isinstance(fact, PushMissed)]
    assert told == [(commit(1), False), (commit(2), True)]
    assert [c for c in world.conditions if c[0] == "WebhooksWorking"] == [
        ("WebhooksWorking", "False", "PushMissed"),
        ("WebhooksWorking", "True", "PushHeard"),
    ]
    # first, interval, soon after a find, then four times as often; a find; ...; and rare in the end
    assert world.rests == pytest.approx([30.0, 60.0, 10.0, 15.0, 10.0, 15.0, 15.0, 600.0, 600.0, 600.0])


@pytest.mark.parametrize(("interval", "rare"), [(1.0, 10.0), (60.0, 600.0), (300.0, 600.0), (3600.0, 3600.0)])
async def test_working_webhooks_make_polling_rare(interval: float, rare: float) -> None:
    world = World([0, 0], interval=interval)
    world.pushed.append(commit(0))
    await world.play()
    assert world.rests[1:] == pytest.approx([rare, rare])


async def test_without_webhooks_nothing_is_missed() -> None:
    world = World([1, 2, 3], webhooks=False)
    await world.play()
    assert world.triggers == [TriggerKind.POLL] * 3
    assert world.missed == []


@pytest.mark.parametrize(
    ("chance", "first", "next_"), [(0.0, 0.0, 54.0), (0.5, 30.0, 60.0), (1.0, 60.0, 66.0)]
)
async def test_the_first_poll_comes_within_the_interval_and_the_next_ones_about_every_interval(
    chance: float, first: float, next_: float
) -> None:
    world = World([0, 0], chance=chance)
    await world.play()
    assert world.rests == pytest.approx([first, next_, next_])


async def test_when_the_next_poll_is_due_is_published() -> None:
    world = World([0])
    await world.play()
    due = [fact.due for fact in world.facts if isinstance(fact, PollScheduled)]
    assert due == pytest.approx([1_000_030.0, 1_000_090.0])


async def test_failures_back_off_to_five_minutes_and_a_success_ends_that() -> None:
    away = [Transient("GitUnavailable", "no answer") for _ in range(5)]
    world = World([*away, 0])
    await world.play()
    assert world.rests == pytest.approx([30.0, 120.0, 240.0, 300.0, 300.0, 300.0, 60.0])
    reasons = [fact.reason for fact in world.facts if isinstance(fact, PollScheduled)]
    assert reasons[5] == "backing off after 5 failed in a row: GitUnavailable"
    assert reasons[6] == "the interval"


async def test_an_interval_over_five_minutes_is_kept_in_failure() -> None:
    world = World([Transient("GitUnavailable", "no answer")] * 2, interval=600.0)
    await world.play()
    assert world.rests == pytest.approx([300.0, 600.0, 600.0])


@pytest.mark.parametrize(("asked", "rest"), [(200.0, 200.0), (1.0, 120.0), (86_400.0, LONGEST_BACKOFF)])
async def test_a_server_that_says_when_to_come_again_is_heard_within_bounds(
    asked: float, rest: float
) -> None:
    world = World([Transient("GitUnavailable", "busy", retry_after=asked)])
    await world.play()
    assert world.rests == pytest.approx([30.0, rest])


async def test_whether_the_source_is_reachable_is_told_when_it_changes() -> None:
    world = World(
        [
            0,
            0,
            Transient("GitUnavailable", "no answer"),
            Transient("GitUnavailable", "no answer"),
            OperatorNeeded("GitAuth", "refused", remedy="look at the credentials"),
            0,
        ]
    )
    await world.play()
    assert world.conditions == [
        ("SourceReachable", "True", "Reachable"),
        ("SourceReachable", "False", "GitUnavailable"),
        ("SourceReachable", "False", "GitAuth"),
        ("SourceReachable", "True", "Reachable"),
    ]
    since = [fact.condition.since for fact in world.facts if isinstance(fact, ConditionChanged)]
    assert since[1] == since[2]  # unreachable since the first failure, whatever the reason
    assert since[0] < since[1] < since[3]


async def test_a_bug_in_looking_does_not_end_polling(caplog: pytest.LogCaptureFixture) -> None:
    world = World([ZeroDivisionError("oops"), 1])
    await world.play()
    assert world.triggers == [TriggerKind.POLL]
    assert world.conditions[0] == ("SourceReachable", "False", "PollFailed")
    assert "nobody expected" in caplog.text


async def test_a_look_that_times_out_by_itself_is_a_failure_like_others() -> None:
    world = World([TimeoutError(), 0])
    await world.play()
    assert world.conditions[0] == ("SourceReachable", "False", "GitTimeout")


async def test_a_poke_ends_the_rest_at_once() -> None:
    world = World([0, 1])
    world.poller._rest = rest_until
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(world.poller.run())
        await asyncio.sleep(0)
        assert len(world.script) == 2  # it rests
        world.poller.poke()
        while len(world.script) == 2:
            await asyncio.sleep(0)
        world.poller.poke()
        assert (await world.inbox.take()).announced == commit(1)
        running.cancel()


async def test_a_poke_during_a_look_makes_one_more() -> None:
    world = World([0, 1])
    look = world.look
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow_look() -> str:
        began.set()
        await go_on.wait()
        return await look()

    world.poller._look = slow_look
    world.poller._rest = rest_until
    world.poller.poke()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(world.poller.run())
        await began.wait()
        world.poller.poke()
        go_on.set()
        assert (await world.inbox.take()).announced == commit(1)
        running.cancel()
