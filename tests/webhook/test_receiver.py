"""What the receiver answers: limits, duplicates, waiting. Errors are problem+json, each with its reason."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence

import pytest

from tests.kit.forges import FORGES, Delivery, deliver, fixture, push_document
from tests.kit.receiving import Client, RecordingSink, receiving
from webhook.app import BODY_LIMIT, INLINE
from webhook.event import PushEvent
from webhook.sink import Verdict

SECRET = b"s3cret"


def push(**options: str) -> Delivery:
    return deliver("github", push_document(), SECRET, **options)  # type: ignore[arg-type]


async def exchange(client: Client, data: bytes) -> tuple[int, dict[str, object]]:
    """Send bytes on a connection of its own, read one answer: status and JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(data)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        length = re.search(r"(?i)^content-length: (\d+)", head, re.MULTILINE)
        assert length is not None
        body = await asyncio.wait_for(reader.readexactly(int(length[1])), 10)
        return int(head.split()[1]), json.loads(body) if "json" in head else {}
    finally:
        writer.close()
        await writer.wait_closed()


HEAD = b"POST /webhook HTTP/1.1\r\nHost: x\r\nX-GitHub-Event: push\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_allowed(method: str) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        answer = await client.send(push(), method=method)
    assert (answer.status, answer.body["reason"], answer.headers["Allow"]) == (
        405,
        "MethodNotAllowed",
        "POST",
    )
    assert answer.type == "application/problem+json"


async def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        head = HEAD + f"Content-Length: {BODY_LIMIT + 1}\r\n\r\n".encode()
        status, body = await exchange(client, head)  # nothing of the body is ever sent
    assert (status, body["reason"]) == (413, "BodyTooLarge")
    assert [fact[:2] for fact in sink.facts] == [("rejected", "BodyTooLarge")]


async def test_a_chunked_body_is_refused_when_it_passes_the_limit() -> None:
    """It would never end; the answer comes all the same."""
    async with receiving(RecordingSink()) as client:
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        status, body = await exchange(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + 4 * chunk)
    assert (status, body["reason"]) == (413, "BodyTooLarge")


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("forge", FORGES)
async def test_a_body_just_within_the_limit_is_accepted(forge: str, form: bool) -> None:
    sink = RecordingSink()
    document = push_document(padding=BODY_LIMIT - 1000)
    async with receiving(sink) as client:
        answer = await client.send(deliver(forge, document, SECRET, form=form))
    assert answer.status == 202


@pytest.mark.parametrize("more", [b"X-Long: " + b"x" * 20_000 + b"\r\n", b"X-Many: x\r\n" * 1000])
async def test_headers_have_bounds(more: bytes) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(HEAD + more + b"Content-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert b" 400 " in answer.split(b"\r\n")[0]
        assert (await client.send(push())).status == 202
    assert len(sink.pushes) == 1


async def test_a_slow_body_is_cut_off() -> None:
    async with receiving(RecordingSink(), body_deadline=0.05) as client:
        status, body = await exchange(client, HEAD + b"Content-Length: 100\r\n\r\n{")
    assert (status, body["reason"]) == (408, "BodyTooSlow")


async def test_a_body_that_ends_early_harms_nobody() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.send(push())).status == 202
    assert len(sink.pushes) == 1


async def test_a_body_framed_wrongly_is_refused() -> None:
    async with receiving(RecordingSink()) as client:
        status, _ = await exchange(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")
    assert status == 400


async def test_a_compressed_body_is_refused() -> None:
    delivery = push()
    delivery.headers["Content-Encoding"] = "gzip"
    async with receiving(RecordingSink()) as client:
        status, body = await exchange(
            client, HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"
        )
    assert (status, body["reason"]) == (415, "BodyCompressed")


async def test_too_much_at_once_is_put_off() -> None:
    sink = RecordingSink()
    async with receiving(sink, reading_limit=200_000) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 190_000)
        await writer.drain()
        delivery = deliver("github", push_document(padding=50_000), SECRET)
        async with asyncio.timeout(10):
            while (answer := await client.send(delivery)).status == 202:
                delivery.headers["X-GitHub-Delivery"] = str(len(sink.pushes))
        assert (answer.status, answer.body["reason"]) == (503, "Busy")
        assert answer.headers["Retry-After"]
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):  # what the gone client held is free again
            while (await client.send(delivery)).status == 503:
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not json",
        b"[1]",
        b"null",
        b'{"ref": "refs/heads/main"}',
        b'{"ref": 1, "after": "' + b"a" * 40 + b'", "repository": {}}',
        b'{"ref": "\xff", "after": "' + b"a" * 40 + b'", "repository": {}}',
        b'{"ref": "\\ud800", "after": "' + b"a" * 40 + b'", "repository": {}}',
        b'{"ref": "' + b"r" * 2000 + b'", "after": "' + b"a" * 40 + b'", "repository": {}}',
        b'{"ref": "refs/heads/main", "after": "HEAD", "repository": {}}',
        b'{"ref": "refs/heads/main", "after": "' + b"a" * 40 + b'", "repository": []}',
        b'{"x":' * 100_000,
        b"[" * 1_000_000,
        b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    ],
    ids=lambda document: f"{len(document)}-{document[:24]!r}",
)
@pytest.mark.parametrize("forge", ["github", "gogs"])
async def test_a_signed_body_that_is_no_push_is_refused(forge: str, document: bytes) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        answer = await client.send(deliver(forge, document, SECRET))
    assert (answer.status, answer.body["reason"]) == (400, "PayloadInvalid")
    assert not sink.pushes


async def test_a_form_without_a_payload_is_refused() -> None:
    async with receiving(RecordingSink()) as client:
        delivery = deliver("gitea", push_document(), SECRET, form=True)
        delivery.body = b"paylaod=" + delivery.body.removeprefix(b"payload=")
        answer = await client.send(delivery)
    assert (answer.status, answer.body["reason"]) == (400, "PayloadInvalid")


async def test_a_delivery_seen_before_gets_the_earlier_sync_and_starts_nothing() -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        first = await client.send(push(delivery="one"))
        again = await client.send(push(delivery="one"))
        other = await client.send(push(delivery="two"))
    assert (first.status, first.body["sync"]) == (202, "sync-1")
    assert (again.status, again.body["verdict"], again.body["sync"]) == (200, "duplicate", "sync-1")
    assert (other.status, other.body["sync"]) == (202, "sync-2")
    assert len(sink.pushes) == 2
    assert [fact[0] for fact in sink.facts] == ["duplicate"]


async def test_an_ignored_delivery_is_a_duplicate_the_second_time_too() -> None:
    class Ignoring(RecordingSink):
        def accept(self, pushes: Sequence[PushEvent]) -> Verdict:
            super().accept(pushes)
            return Verdict("ignored", reason="not ours")

    sink = Ignoring()
    async with receiving(sink) as client:
        first = await client.send(push(delivery="one"))
        again = await client.send(push(delivery="one"))
    assert (first.status, first.body) == (200, {"verdict": "ignored", "reason": "not ours"})
    assert (again.status, again.body["verdict"]) == (200, "duplicate")
    assert "not ours" in again.body["reason"]
    assert len(sink.pushes) == 1


@pytest.mark.parametrize("delivery", ["", "two words", "ü", "x" * 200])
async def test_a_delivery_without_a_usable_id_is_never_a_duplicate(delivery: str) -> None:
    sink = RecordingSink()
    async with receiving(sink) as client:
        for _ in range(2):
            assert (await client.send(push(delivery=delivery))).status == 202
    assert [p.delivery for p in sink.pushes] == ["", ""]


async def test_a_refused_delivery_is_not_remembered() -> None:
    """Else a stranger could spend the ids of genuine deliveries."""
    sink = RecordingSink()
    async with receiving(sink) as client:
        forged = push(delivery="one")
        forged.headers["X-Hub-Signature-256"] = "sha256=" + "0" * 64
        assert (await client.send(forged)).status == 401
        assert (await client.send(push(delivery="one"))).status == 202


@pytest.mark.parametrize("result", ["succeeded", "unchanged"])
async def test_wait_answers_200_once_what_was_pushed_runs(result: str) -> None:
    sink = RecordingSink(end={"result": result, "commit": "a" * 40})
    async with receiving(sink) as client:
        answer = await client.send(push(), query="?wait=1")
    assert answer.status == 200
    assert answer.body == {
        "verdict": "accepted",
        "sync": "sync-1",
        "merged": False,
        "result": result,
        "commit": "a" * 40,
    }


@pytest.mark.parametrize("result", ["failed", "rolled-back", "superseded", "interrupted"])
async def test_wait_never_answers_a_failure_as_success(result: str) -> None:
    end: Mapping[str, object] = {"result": result, "failure": {"reason": "StateInvalid"}}
    async with receiving(RecordingSink(end=end)) as client:
        answer = await client.send(push(), query="?wait=1")
    assert (answer.status, answer.type) == (409, "application/problem+json")
    assert (answer.body["reason"], answer.body["result"]) == ("SyncNotSuccessful", result)
    assert (answer.body["sync"], answer.body["failure"]) == ("sync-1", {"reason": "StateInvalid"})
    assert result in answer.body["detail"]


async def test_wait_says_running_when_the_deadline_passes_first() -> None:
    async with receiving(RecordingSink(end=None)) as client:
        answer = await client.send(push(), query="?wait=true")
    assert (answer.status, answer.body["result"]) == (202, "running")


async def test_wait_of_a_duplicate_waits_for_the_earlier_sync() -> None:
    sink = RecordingSink(end={"result": "succeeded"})
    async with receiving(sink) as client:
        await client.send(push(delivery="one"))
        answer = await client.send(push(delivery="one"), query="?wait=1")
    assert (answer.status, answer.body["verdict"], answer.body["result"]) == (200, "duplicate", "succeeded")


async def test_without_wait_the_answer_comes_while_the_sync_still_runs() -> None:
    class Endless(RecordingSink):
        async def wait(self, sync: str, deadline: float) -> Mapping[str, object] | None:
            raise AssertionError("nobody asked to wait")

    async with receiving(Endless()) as client:
        for query in ("", "?wait=0", "?wait=no", "?wait="):
            assert (await client.send(push(delivery=f"d{query[1:]}"), query=query)).status == 202


@pytest.mark.parametrize("size", [INLINE, 4 * INLINE])
async def test_deliveries_at_the_same_time_do_not_mix(size: int) -> None:
    """Small bodies are verified on the loop, large ones in threads."""
    sink = RecordingSink()
    commits = [f"{number:040x}" for number in range(1, 33)]
    async with receiving(sink) as client:
        documents = [push_document(after=commit, padding=size - 1000) for commit in commits]
        answers = await asyncio.gather(*(client.send(deliver("gitea", d, SECRET)) for d in documents))
    assert {answer.status for answer in answers} == {202}
    assert sorted(str(p.after) for p in sink.pushes) == commits


async def test_a_fixture_of_each_forge_survives_another_ones_headers() -> None:
    """Headers choose the reader; a body that does not fit gets an answer, not an accident."""
    async with receiving(RecordingSink()) as client:
        for forge in FORGES:
            for name in ("github_ping", "github_tag", "gogs_create_tag", "gitea_push"):
                for event in ("push", "create", "delete"):
                    answer = await client.send(deliver(forge, fixture(name), SECRET, event=event))
                    assert answer.status in (200, 202, 400)
