"""Each forge's own delivery, as its documentation shows it, on a real server."""

from __future__ import annotations

import json

import pytest

from tests.kit.forges import FORGES, deliver, fixture
from tests.kit.receiving import RecordingSink, receiving
from webhook.forges import tell_apart

SECRET = b"s3cret"
AFTER = "7a6d0f1b2c3e4f5061728394a5b6c7d8e9f0a1b2"
HOSTS = {
    "github": "github.com",
    "gitea": "git.example.com",
    "forgejo": "forge.example.org",
    "gogs": "gogs.example.net",
}


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("forge", FORGES)
async def test_a_push_is_accepted_with_all_that_it_says(forge: str, form: bool) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        delivery = deliver(forge, fixture(f"{forge}_push"), SECRET, delivery="d-1", form=form)
        answer = await client.send(delivery)
    assert (answer.status, answer.body) == (202, {"verdict": "accepted", "sync": "sync-1", "merged": False})
    [push] = sink.pushes
    assert (push.forge, push.delivery, push.ref, push.after) == (forge, "d-1", "refs/heads/main", AFTER)
    assert (push.deleted, push.default_branch) == (False, "main")
    assert f"https://{HOSTS[forge]}/acme/state.git" in push.repositories
    assert "acme/state" in push.repositories


@pytest.mark.parametrize("forge", FORGES)
async def test_a_forge_is_told_from_those_whose_headers_it_sends_too(forge: str) -> None:
    found = tell_apart(deliver(forge, b"{}", SECRET).headers)
    assert found is not None
    assert found.name == forge


async def test_a_ping_is_answered() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        answer = await client.send(deliver("github", fixture("github_ping"), SECRET, event="ping"))
    assert (answer.status, answer.body["verdict"]) == (200, "pong")
    assert not sink.pushes
    assert [fact[:2] for fact in sink.facts] == [("ignored", "ping")]


async def test_a_ping_with_a_wrong_signature_is_refused() -> None:
    async with receiving(RecordingSink()) as client:
        answer = await client.send(deliver("github", fixture("github_ping"), b"other", event="ping"))
    assert answer.status == 401


@pytest.mark.parametrize("forge", FORGES)
async def test_another_event_is_ignored_with_a_reason(forge: str) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        answer = await client.send(deliver(forge, b'{"action": "opened"}', SECRET, event="issues"))
    assert (answer.status, answer.body["verdict"]) == (200, "ignored")
    assert answer.body["reason"] == "the event issues is not a push"
    assert not sink.pushes


@pytest.mark.parametrize(
    "change",
    [
        {"before": "0" * 40, "created": True},  # the first push of a branch
        {"forced": True},
        {"commits": [], "head_commit": None},  # a branch that is moved to what is known
    ],
)
@pytest.mark.parametrize("forge", FORGES)
async def test_first_pushes_forced_ones_and_those_without_commits_announce_the_commit(
    forge: str, change: dict[str, object]
) -> None:
    sink = RecordingSink()
    document = json.dumps({**json.loads(fixture(f"{forge}_push")), **change}).encode()
    async with receiving(sink) as client:
        assert (await client.send(deliver(forge, document, SECRET))).status == 202
    assert [push.after for push in sink.pushes] == [AFTER]


@pytest.mark.parametrize("forge", ["gitea", "forgejo", "gogs"])
async def test_a_release_of_gogs_and_its_descendants_is_heard_of(forge: str) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        answer = await client.send(deliver(forge, fixture("github_release"), SECRET, event="release"))
    assert answer.status == 202
    assert [(found.forge, found.tag) for found in sink.artifacts] == [(forge, "v1.4.0")]


async def test_of_an_annotated_tag_the_commit_is_announced_not_the_tag() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        await client.send(deliver("github", fixture("github_tag"), SECRET))
    assert (sink.pushes[0].ref, sink.pushes[0].after) == ("refs/tags/v1.4.0", AFTER)


async def test_a_deleted_branch_announces_nothing() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        await client.send(deliver("github", fixture("github_delete"), SECRET))
    assert (sink.pushes[0].deleted, sink.pushes[0].after) == (True, None)


async def test_gogs_tells_of_tags_and_deletions_by_events_of_their_own() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        await client.send(deliver("gogs", fixture("gogs_create_tag"), SECRET, event="create"))
        await client.send(deliver("gogs", fixture("gogs_delete_branch"), SECRET, event="delete"))
    assert [(p.ref, p.after, p.deleted) for p in sink.pushes] == [
        ("refs/tags/v1.4.0", AFTER, False),
        ("refs/heads/main", None, True),
    ]


async def test_a_branch_created_on_gogs_waits_for_the_push_that_comes_with_it() -> None:
    sink = RecordingSink()
    document = fixture("gogs_create_tag").replace(b'"tag"', b'"branch"')
    async with receiving(sink) as client:
        answer = await client.send(deliver("gogs", document, SECRET, event="create"))
    assert answer.body["verdict"] == "ignored"
    assert not sink.pushes


async def test_names_that_are_not_ascii_arrive_whole() -> None:
    sink = RecordingSink()
    document = fixture("gitea_push").replace(b"refs/heads/main", "refs/heads/größe/雪".encode())
    async with receiving(sink) as client:
        for form in (False, True):
            await client.send(deliver("gitea", document, SECRET, form=form))
    assert [push.ref for push in sink.pushes] == ["refs/heads/größe/雪"] * 2


async def test_an_unknown_forge_is_told_which_ones_are_known() -> None:
    sink = RecordingSink()
    delivery = deliver("github", fixture("github_push"), SECRET)
    delivery.headers = {"Content-Type": "application/json", "X-Sourcehut-Event": "push"}
    async with receiving(sink) as client:
        answer = await client.send(delivery)
    assert (answer.status, answer.body["reason"]) == (400, "ForgeUnknown")
    assert "forgejo" in answer.body["detail"]
