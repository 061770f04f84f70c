"""From a forge's request to a sync and back: real receiver, real inbox, a consumer that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.events import Bus, Event, SyncFinished, TriggerHeard
from agent.domain.model import SyncResult, TriggerKind
from agent.kit.mask import secrets as masker
from agent.source.inbox import PendingSync, TriggerInbox
from agent.source.pushes import REMEMBERED, PushSink
from tests.kit.forges import FORGES, commit, deliver, fixture, push_document
from tests.kit.receiving import receiving
from webhook.event import ArtifactEvent, Hint, PushEvent
from webhook.sink import Verdict

SECRET = b"s3cret"
REPO = "http://gitea.forge.svc:3000/acme/state.git"


class Parts:
    """Bus, inbox and sink, wired as the agent wires them, and every fact that was published."""

    def __init__(self, ref: str = "main") -> None:
        self.bus = Bus()
        self.facts: list[Event] = []
        self.bus.subscribe(self.facts.append)
        self.inbox = TriggerInbox(self.bus)
        self.sink = PushSink(self.inbox, REPO, ref, self.bus)
        self.taken: list[PendingSync] = []

    @property
    def verdicts(self) -> list[str]:
        return [fact.verdict for fact in self.facts if isinstance(fact, TriggerHeard)]

    async def consume(self, end: Callable[[str], SyncFinished], spacing: float = 0.0) -> None:
        """Take and end syncs, for ever."""
        began = -spacing
        while True:
            pending = await self.inbox.take(not_before=began + spacing)
            began = time.monotonic()
            self.taken.append(pending)
            self.inbox.finished(end(pending.sync))


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.mark.parametrize("forge", FORGES)
async def test_a_push_to_what_is_followed_becomes_a_sync(parts: Parts, forge: str) -> None:
    async with receiving(parts.sink) as client:
        answer = await client.send(deliver(forge, fixture(f"{forge}_push"), SECRET, delivery="d-1"))
    assert (answer.status, answer.body["sync"]) == (202, parts.inbox.pending)
    async with asyncio.timeout(10):
        pending = await parts.inbox.take()
    [trigger] = pending.triggers
    assert (trigger.kind, trigger.detail) == (TriggerKind.PUSH, f"{forge} d-1")
    assert pending.announced == trigger.commit == "7a6d0f1b2c3e4f5061728394a5b6c7d8e9f0a1b2"
    assert parts.sink.announced(pending.announced)
    assert not parts.sink.announced(commit(1))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (push_document(repository="acme/other"), "the repository acme/other is not followed"),
        (push_document(ref="refs/heads/dev"), "refs/heads/dev is not followed; main is"),
        (push_document(after="0" * 40), "refs/heads/main was deleted"),
    ],
)
async def test_a_push_to_something_else_is_ignored_with_a_reason(
    parts: Parts, document: bytes, reason: str
) -> None:
    async with receiving(parts.sink) as client:
        answer = await client.send(deliver("gitea", document, SECRET, delivery="d-1"))
    assert (answer.status, answer.body) == (200, {"verdict": "ignored", "reason": reason})
    assert parts.inbox.pending is None
    [fact] = [fact for fact in parts.facts if isinstance(fact, TriggerHeard)]
    assert (fact.verdict, fact.reason, fact.detail) == ("ignored", reason, "gitea d-1")


async def test_every_answer_is_a_fact_once(parts: Parts) -> None:
    good = deliver("github", push_document(), SECRET, delivery="d-1")
    merged = deliver("github", push_document(after=commit(2)), SECRET)
    bad = deliver("github", push_document(), b"other")
    ping = deliver("github", b"{}", SECRET, event="ping")
    async with receiving(parts.sink) as client:
        for delivery in (good, merged, good, bad, ping):
            await client.send(delivery)
    assert parts.verdicts == ["accepted", "merged", "duplicate", "rejected", "ignored"]


async def test_wait_tells_how_the_sync_ended(parts: Parts) -> None:
    def end(sync: str) -> SyncFinished:
        return SyncFinished(sync, SyncResult.SUCCEEDED, commit(1), seconds=0.12345)

    async with receiving(parts.sink) as client, asyncio.TaskGroup() as group:
        consumer = group.create_task(parts.consume(end))
        answer = await client.send(deliver("gogs", push_document(), SECRET), query="?wait=1")
        consumer.cancel()
    assert (answer.status, answer.body["result"], answer.body["commit"]) == (200, "succeeded", commit(1))
    assert answer.body["seconds"] == 0.123
    assert "failure" not in answer.body


async def test_wait_tells_why_the_sync_failed_without_its_secrets(parts: Parts) -> None:
    masker.add("hunter2-hunter2")
    failure = FailureInfo(
        FailureKind.OPERATOR,
        "GitAuth",
        "the server refuses hunter2-hunter2",
        where="https://u:pw@git.example.com/acme/state",
        remedy="look at the credentials",
    )

    def end(sync: str) -> SyncFinished:
        return SyncFinished(sync, SyncResult.FAILED, failure=failure)

    async with receiving(parts.sink) as client, asyncio.TaskGroup() as group:
        consumer = group.create_task(parts.consume(end))
        answer = await client.send(deliver("gogs", push_document(), SECRET), query="?wait=1")
        consumer.cancel()
    assert (answer.status, answer.body["result"]) == (409, "failed")
    assert answer.body["failure"]["reason"] == "GitAuth"
    assert answer.body["failure"]["remedy"] == "look at the credentials"
    assert "hunter2" not in str(answer.body)
    assert "pw@" not in str(answer.body)


async def test_a_thousand_pushes_make_two_syncs_the_last_of_the_newest_commit(parts: Parts) -> None:
    """The first is taken at once; all others join the one that waits, and none is lost."""
    count = 1000

    def end(sync: str) -> SyncFinished:
        return SyncFinished(sync, SyncResult.SUCCEEDED)

    async with receiving(parts.sink) as client, asyncio.TaskGroup() as group:
        first = await client.send(deliver("gitea", push_document(after=commit(0)), SECRET))
        consumer = group.create_task(parts.consume(end, spacing=3600))
        rest = await asyncio.gather(
            *(
                client.send(deliver("gitea", push_document(after=commit(n), padding=500), SECRET))
                for n in range(1, count - 1)
            )
        )
        last = await client.send(deliver("gitea", push_document(after=commit(count)), SECRET))
        async with asyncio.timeout(10):
            while not parts.taken:
                await asyncio.sleep(0)
        assert len(parts.taken) == 1
        assert parts.inbox.pending == last.body["sync"]
        consumer.cancel()
        await asyncio.wait([consumer])
        async with asyncio.timeout(10):
            pending = await parts.inbox.take()
    answers = [first, *rest, last]
    assert {answer.status for answer in answers} == {202}
    assert {answer.body["sync"] for answer in answers} == {parts.taken[0].sync, pending.sync}
    assert parts.taken[0].count + pending.count == count
    assert pending.announced == commit(count)


async def test_deliveries_while_a_consumer_takes_as_fast_as_it_can_all_end_in_a_sync(parts: Parts) -> None:
    def end(sync: str) -> SyncFinished:
        return SyncFinished(sync, SyncResult.SUCCEEDED)

    async with receiving(parts.sink) as client, asyncio.TaskGroup() as group:
        consumer = group.create_task(parts.consume(end))
        answers = await asyncio.gather(
            *(
                client.send(deliver("forgejo", push_document(after=commit(n)), SECRET), query="?wait=1")
                for n in range(200)
            )
        )
        consumer.cancel()
    assert {(answer.status, answer.body["result"]) for answer in answers} == {(200, "succeeded")}
    assert sum(pending.count for pending in parts.taken) == 200
    assert {answer.body["sync"] for answer in answers} == {pending.sync for pending in parts.taken}


async def test_pushes_of_a_commit_that_the_newest_look_has_seen_start_nothing(parts: Parts) -> None:
    def push(number: int) -> PushEvent:
        return PushEvent("gitea", "", ("acme/state",), "refs/heads/main", "", commit(number), False)

    sync = parts.sink.accept([push(1)]).sync
    await parts.inbox.take()
    assert parts.sink.accept([push(1)]).sync == parts.inbox.pending  # it has not looked yet
    await parts.inbox.take()
    parts.inbox.resolved(sync, commit(1))
    for _ in range(1000):
        assert parts.sink.accept([push(1)]) == Verdict("merged", sync)
    assert not parts.inbox.pending
    assert parts.sink.accept([push(2)]).sync == parts.inbox.pending  # that is news
    await parts.inbox.take()
    parts.inbox.resolved(str(parts.inbox.running), commit(2))
    assert parts.sink.accept([push(1)]).sync == parts.inbox.pending  # and so is the way back


@pytest.mark.parametrize("result", [SyncResult.FAILED, SyncResult.ROLLED_BACK, SyncResult.INTERRUPTED])
async def test_a_commit_whose_sync_went_wrong_is_looked_at_again(parts: Parts, result: SyncResult) -> None:
    push = PushEvent("gitea", "", ("acme/state",), "refs/heads/main", "", commit(1), False)
    sync = parts.sink.accept([push]).sync
    await parts.inbox.take()
    parts.inbox.resolved(sync, commit(1))
    parts.inbox.finished(SyncFinished(sync, SyncResult.PROBATION, commit(1)))
    assert parts.sink.accept([push]).sync == sync
    parts.inbox.finished(SyncFinished(sync, result, commit(1)))
    again = parts.sink.accept([push])
    assert (again.verdict, again.sync) == ("accepted", parts.inbox.pending)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://github.com/acme/web/releases/download/v1/web.tgz", "accepted"),
        ("oci://registry.example.com/Acme/Web:1.4", "accepted"),
        ("https://releases.example.com/acme/website/web.tgz", "ignored"),
        ("https://releases.example.com/acme/other.tgz", "ignored"),
        (None, "ignored"),
    ],
)
async def test_news_of_an_artifact_count_when_a_wanted_one_comes_from_there(
    parts: Parts, url: str | None, verdict: str
) -> None:
    sink = PushSink(parts.inbox, REPO, "main", parts.bus, lambda: [url] if url else [])
    answer = sink.accept_artifact(ArtifactEvent("harbor", "", ("acme/web", "harbor.example/x"), "1.4"))
    assert answer.verdict == verdict
    assert parts.verdicts == [verdict]
    if verdict == "accepted":
        pending = await parts.inbox.take()
        assert (pending.by_artifact, pending.triggers[0].kind) == (True, TriggerKind.ARTIFACT)


async def test_a_hint_is_a_push_of_which_nothing_is_known(parts: Parts) -> None:
    assert parts.sink.accept_hint(Hint("generic", "g-1")).verdict == "accepted"
    pending = await parts.inbox.take()
    assert (pending.announced, pending.triggers[0].detail) == (None, "generic g-1")


async def test_of_several_refs_the_one_that_is_followed_decides(parts: Parts) -> None:
    def push(ref: str, number: int) -> PushEvent:
        return PushEvent("bitbucket-cloud", "d", ("acme/state",), ref, "", commit(number), False)

    verdict = parts.sink.accept([push("refs/heads/x", 1), push("refs/heads/main", 2), push("refs/tags/v", 3)])
    assert verdict.verdict == "accepted"
    assert (await parts.inbox.take()).announced == commit(2)
    assert parts.sink.accept([push("refs/heads/x", 1), push("refs/heads/y", 2)]).verdict == "ignored"
    assert parts.verdicts == ["accepted", "ignored"]


async def test_the_memory_of_announced_commits_is_bounded(parts: Parts) -> None:
    def push(number: int) -> PushEvent:
        return PushEvent("gitea", "", ("acme/state",), "refs/heads/main", "", commit(number), False)

    for number in (0, *range(REMEMBERED), 1, REMEMBERED):
        parts.sink.accept([push(number)])
    assert parts.sink.announced(commit(1))
    assert parts.sink.announced(commit(REMEMBERED))
    assert not parts.sink.announced(commit(0))


async def test_a_followed_commit_is_moved_by_no_push() -> None:
    parts = Parts(ref="c" * 40)
    async with receiving(parts.sink) as client:
        answer = await client.send(deliver("github", push_document(), SECRET))
    assert (answer.status, answer.body["verdict"]) == (200, "ignored")
    assert "no push moves" in answer.body["reason"]
