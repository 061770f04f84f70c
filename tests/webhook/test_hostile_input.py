"""Whatever comes: never a 500, and nothing unsigned is accepted."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.kit.forges import FORGES, OTHERS, deliver, push_document
from tests.kit.receiving import RecordingSink, receiving
from webhook.deliveries import Deliveries
from webhook.forges import tell_apart
from webhook.payloads import form
from webhook.payloads.forge import QUERY_TOKEN, PayloadInvalid
from webhook.signature import SignatureRefused
from webhook.sink import Verdict

SECRET = b"s3cret"
WHSEC = b"whsec_" + base64.b64encode(bytes(range(32)))
QUERIES = ["", "?wait=1", "?wait=%ff", "?%zz&wait", "?token=x", "?token=%ff&wait=1"]
EVENTS = ["", "release", "package", "Release Hook", "repo:push", "repo:refs_changed", "diagnostics:ping"]
NAMES = [
    *(f"X-{f}-{part}" for f in ("GitHub", "Gitea", "Forgejo", "Gogs") for part in ("Event", "Delivery")),
    *(f"X-{f}-Signature" for f in ("Gitea", "Forgejo", "Gogs", "Hub")),
    "X-Hub-Signature-256",
    "X-Gitlab-Event",
    "X-Gitlab-Token",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "X-Event-Key",
    "X-Hook-UUID",
    "X-Signature",
    "X-Signature-256",
    "Authorization",
    "X-Forwarded-For",
    "Content-Type",
    "Content-Encoding",
]
VALUES = st.one_of(
    st.sampled_from(
        ["push", "ping", "create", "delete", "", "identity", "gzip", "application/x-www-form-urlencoded"]
    ),
    st.sampled_from(["sha256=", "sha256=" + "0" * 64, "0" * 64, "sha512=" + "0" * 128, "application/json"]),
    st.sampled_from(["Basic Og==", "Bearer x", "v1,AAAA", "1763640000", "repo:push", "Push Hook"]),
    st.sampled_from(["application/vnd.docker.distribution.events.v1+json", "127.0.0.1, ::1"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "ref",
                        "after",
                        "before",
                        "repository",
                        "full_name",
                        "head_commit",
                        "id",
                        "deleted",
                        "x",
                    ),
                    *("object_kind", "project", "push", "changes", "new", "old", "type", "name", "target"),
                    *("resource", "refUpdates", "eventType", "events", "action", "event_data", "resources"),
                    *("push_data", "repo_name", "x", "tag", "release", "package", "package_version"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


async def post(port: int, headers: list[tuple[str, str]], body: bytes, target: str) -> bytes:
    """One request on a connection of its own; its whole answer."""
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6),
            st.binary(max_size=200),
            st.sampled_from(
                ["/webhook?token=x", "/webhook", "/webhook?wait=1", "/webhook?wait=%ff", "/webhook?%zz&wait"]
            ),
        ),
        min_size=10,
        max_size=20,
    )
)
def test_any_headers_and_body_get_an_answer_that_is_no_accident(
    requests: list[tuple[list[tuple[str, str]], bytes, str]],
) -> None:
    async def play() -> None:
        sink = RecordingSink()
        async with receiving(sink) as client:
            answers = await asyncio.gather(*(post(client.port, *request) for request in requests))
        for answer in answers:
            assert re.match(rb"HTTP/1.[01] 4\d\d ", answer), answer[:200]
        assert not sink.pushes

    asyncio.run(play())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(FORGES), JSON, st.booleans(), VALUES), min_size=10, max_size=20))
def test_any_signed_json_gets_an_answer_that_is_no_accident(
    deliveries: list[tuple[str, object, bool, str]],
) -> None:
    async def play() -> None:
        async with receiving(RecordingSink(end=None)) as client:
            for forge, document, as_form, event in deliveries:
                if not event.isascii() or not event.isprintable():
                    event = "push"
                delivery = deliver(forge, json.dumps(document).encode(), SECRET, event=event, form=as_form)
                answer = await client.send(delivery, query="?wait=1")
                assert answer.status in (200, 202, 400)

    asyncio.run(play())


@settings(deadline=None)
@given(st.sampled_from(sorted(OTHERS)), JSON | st.binary(max_size=300), st.sampled_from(EVENTS))
def test_other_senders_raise_nothing_but_the_two_refusals_either(
    sender: str, document: object, event: str
) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers: CIMultiDict[str] = CIMultiDict(OTHERS[sender](body, WHSEC, event))
    if sender == "docker-hub":
        headers[QUERY_TOKEN] = WHSEC.decode()
    found = tell_apart(headers)
    assert found is not None
    try:
        found.read(headers, found.verify(headers, body, [b"x", WHSEC]))
    except PayloadInvalid:
        pass


@given(st.sampled_from(FORGES), st.binary(max_size=300), st.booleans(), st.data())
def test_a_forge_raises_nothing_but_its_two_refusals(
    forge: str, body: bytes, as_form: bool, data: st.DataObject
) -> None:
    delivery = deliver(forge, body, SECRET, form=as_form)
    if data.draw(st.booleans()):
        delivery.body = data.draw(st.binary(max_size=300))
    found = tell_apart(delivery.headers)
    assert found is not None
    try:
        found.read(delivery.headers, found.verify(delivery.headers, delivery.body, [b"x", SECRET]))
    except (SignatureRefused, PayloadInvalid):
        pass


@given(st.binary(max_size=400), st.binary(max_size=20))
def test_a_form_gives_back_what_was_put_in(value: bytes, other: bytes) -> None:
    assert form.payload(urlencode({"payload": value}).encode()) == value
    assert form.payload(urlencode({"a": other, "payload": value, "z": other}).encode()) == value
    assert form.payload(b"payload=" + quote_plus(value).lower().encode()) is not None


@pytest.mark.parametrize("body", [b"", b"payload", b"xpayload=1", b"x=payload=1", b"&", b"a=1&b=2"])
def test_a_form_without_the_field_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadInvalid, match="payload"):
        form.payload(body)


@pytest.mark.parametrize("body", [b"payload=%", b"payload=%4", b"payload=%zz", b"payload=%%", b"payload=%\n"])
def test_a_broken_escape_is_rubbish_and_no_accident(body: bytes) -> None:
    assert isinstance(form.payload(body), bytes)


def test_the_memory_of_deliveries_is_bounded() -> None:
    memory = Deliveries(limit=3)
    for number in range(10):
        memory.remember("github", str(number), Verdict("accepted", f"sync-{number}"))
    assert len(memory) == 3
    assert memory.earlier("github", "9") == Verdict("accepted", "sync-9")
    assert memory.earlier("github", "6") is None
    assert memory.earlier("gitea", "9") is None


def test_the_signature_is_checked_over_every_secret() -> None:
    delivery = deliver("forgejo", push_document(), SECRET)
    found = tell_apart(delivery.headers)
    assert found is not None
    for secrets in ([SECRET, b"x"], [b"x", SECRET], [b"x"] * 10 + [SECRET]):
        assert found.verify(delivery.headers, delivery.body, secrets) == delivery.body
