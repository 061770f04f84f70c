"""The senders with ways of their own: GitLab, Bitbucket, Azure DevOps, generic ones, registries."""

from __future__ import annotations

import base64
import json
import time

import pytest

from tests.kit.forges import OTHERS, Delivery, fixture, push_document, sign_standard
from tests.kit.receiving import Answer, RecordingSink, receiving
from webhook.forges import forges, tell_apart

PLAIN = b"s3cret-of-the-hook"
WHSEC = b"whsec_" + base64.b64encode(bytes(range(32)))
AFTER = "7a6d0f1b2c3e4f5061728394a5b6c7d8e9f0a1b2"
DIGEST = "sha256:" + "9f" * 32

PUSHES = {
    "gitlab": ("gitlab", "gitlab_push", "f5e57390-ec14-41c2-b3ba-000000000001"),
    "gitlab-signed": ("gitlab", "gitlab_push", "f5e57390-ec14-41c2-b3ba-000000000001"),
    "bitbucket-cloud": ("bitbucket-cloud", "bitbucket_cloud_push", "dd4b5d5a-0000-4000-8000-000000000001"),
    "bitbucket-server": ("bitbucket-server", "bitbucket_server_push", "5f2b9a1c-0000-4000-8000-000000000001"),
    "azure-devops": ("azure-devops", "azure_devops_push", "0d7f2c4e-8912-4d5e-8009-3707d5f80001"),
    "generic": ("generic", "github_push", "g-1"),
    "generic-512": ("generic", "github_push", "g-1"),
}
REGISTRIES = {
    "harbor": ("harbor", "harbor_push", ""),
    "oci-registry": ("oci-registry", "oci_registry_push", ""),
    "docker-hub": ("docker-hub", "docker_hub_push", ""),
    "ghcr": ("github", "github_package", "package"),
    "github-release": ("github", "github_release", "release"),
    "gitlab-release": ("gitlab", "gitlab_release", "Release Hook"),
}
SIGNED = ("gitlab-signed", "bitbucket-cloud", "bitbucket-server", "generic", "generic-512")


def secret_of(sender: str) -> bytes:
    return WHSEC if sender == "gitlab-signed" else PLAIN


def headers_of(sender: str, body: bytes, event: str = "", secret: bytes | None = None) -> dict[str, str]:
    return OTHERS[sender](body, secret_of(sender) if secret is None else secret, event)


async def send(sink: RecordingSink, headers: dict[str, str], body: bytes, query: str = "") -> Answer:
    async with receiving(sink, [b"an older one", PLAIN, WHSEC]) as client:
        return await client.send(Delivery(headers, body), query=query)


@pytest.mark.parametrize("sender", PUSHES)
async def test_a_push_is_accepted_with_all_that_it_says(sender: str) -> None:
    name, file, delivery = PUSHES[sender]
    body, sink = fixture(file), RecordingSink()
    answer = await send(sink, headers_of(sender, body), body)
    assert (answer.status, answer.body["verdict"], answer.body["sync"]) == (202, "accepted", "sync-1")
    [push] = sink.pushes
    assert (push.forge, push.delivery, push.ref) == (name, delivery, "refs/heads/main")
    assert (push.after, len(push.before), push.deleted) == (AFTER, 40, False)
    assert "acme/state" in [n.casefold() for n in push.repositories]


@pytest.mark.parametrize("kind", REGISTRIES)
async def test_what_is_published_is_heard_of(kind: str) -> None:
    sender, file, event = REGISTRIES[kind]
    body, sink = fixture(file), RecordingSink()
    query = f"?token={PLAIN.decode()}" if sender == "docker-hub" else ""
    answer = await send(sink, headers_of(sender, body, event), body, query)
    assert (answer.status, answer.body["sync"]) == (202, "sync-1")
    [published] = sink.artifacts
    assert published.forge == sender
    assert "acme/web" in published.repositories
    assert published.tag in ("1.4.0", "v1.4.0")
    assert published.digest in ("", DIGEST)
    assert bool(published.digest) == (kind in ("harbor", "oci-registry", "ghcr"))


async def test_every_sender_has_a_documented_delivery_here() -> None:
    """Whoever adds a forge adds a fixture, and this test finds who did not."""
    tried = {name for name, _, _ in (*PUSHES.values(), *REGISTRIES.values())} | {"gitea", "forgejo", "gogs"}
    assert tried == {forge.name for forge in forges()}


@pytest.mark.parametrize("sender", SIGNED)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
async def test_one_changed_byte_is_noticed(sender: str, place: float) -> None:
    body = fixture(PUSHES[sender][1])
    headers, at = headers_of(sender, body), int(len(body) * place)
    forged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    sink = RecordingSink()
    answer = await send(sink, headers, forged)
    assert (answer.status, answer.body["reason"]) == (401, "SignatureWrong")
    assert not sink.syncs
    assert sink.facts == [("rejected", "SignatureWrong", PUSHES[sender][0])]


@pytest.mark.parametrize("sender", [*PUSHES, "harbor", "oci-registry"])
async def test_another_secret_is_refused(sender: str) -> None:
    file = (PUSHES | REGISTRIES)[sender][1]
    wrong = b"whsec_" + base64.b64encode(bytes(32)) if sender == "gitlab-signed" else b"another one"
    sink = RecordingSink()
    answer = await send(sink, headers_of(sender, fixture(file), secret=wrong), fixture(file))
    assert answer.status == 401
    assert answer.body["reason"] in ("SignatureWrong", "TokenWrong")
    assert answer.headers["WWW-Authenticate"]
    assert not sink.syncs


@pytest.mark.parametrize(
    ("sender", "header"),
    [
        ("gitlab", "X-Gitlab-Token"),
        ("gitlab-signed", "webhook-signature"),
        ("bitbucket-cloud", "X-Hub-Signature"),
        ("bitbucket-server", "X-Hub-Signature"),
    ],
)
async def test_no_signature_or_token_is_refused(sender: str, header: str) -> None:
    body, sink = fixture(PUSHES[sender][1]), RecordingSink()
    headers = headers_of(sender, body)
    del headers[header]
    answer = await send(sink, headers, body)
    assert answer.status == 401
    assert answer.body["reason"] in ("SignatureMissing", "TokenMissing")
    assert not sink.syncs


@pytest.mark.parametrize("sender", ["bitbucket-cloud", "bitbucket-server"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha512", "md5", ""])
async def test_another_algorithm_is_refused(sender: str, algorithm: str) -> None:
    body, sink = fixture(PUSHES[sender][1]), RecordingSink()
    headers = headers_of(sender, body)
    headers["X-Hub-Signature"] = headers["X-Hub-Signature"].replace("sha256", algorithm)
    answer = await send(sink, headers, body)
    assert (answer.status, answer.body["reason"]) == (401, "SignatureMalformed")


@pytest.mark.parametrize("text", ["sha1=" + "0" * 40, "md5=" + "0" * 32, "0" * 40, "=", "sha256=", "ü" * 64])
async def test_a_generic_sender_signs_with_sha256_or_sha512_and_nothing_less(text: str) -> None:
    headers = {"Content-Type": "application/json", "X-Signature": text}
    sink = RecordingSink()
    answer = await send(sink, headers, b"{}")
    assert answer.status == 401
    assert not sink.syncs


async def test_a_signed_gitlab_delivery_is_good_for_five_minutes() -> None:
    body = fixture("gitlab_push")
    for off, status in ((-290.0, 202), (290.0, 202), (-400.0, 401), (400.0, 401)):
        headers = headers_of("gitlab-signed", body) | sign_standard(
            WHSEC, f"id{off}", body, time.time() + off
        )
        answer = await send(RecordingSink(), headers, body)
        assert answer.status == status, off
        assert status == 202 or answer.body["reason"] == "SignatureExpired"


async def test_one_of_several_gitlab_signatures_is_enough_during_a_rotation() -> None:
    body = fixture("gitlab_push")
    headers = headers_of("gitlab-signed", body)
    other = "v1," + base64.b64encode(bytes(32)).decode()
    headers["webhook-signature"] = f"{other} v1a,whatever {headers['webhook-signature']}"
    assert (await send(RecordingSink(), headers, body)).status == 202


async def test_the_signed_id_and_time_of_gitlab_cannot_be_changed() -> None:
    """So that a captured delivery is a duplicate within the window, and too old after it."""
    body = fixture("gitlab_push")
    for name, value in (("webhook-id", "another"), ("webhook-timestamp", str(int(time.time()) + 1))):
        headers = headers_of("gitlab-signed", body)
        headers[name] = value
        assert (await send(RecordingSink(), headers, body)).body["reason"] == "SignatureWrong"


async def test_a_replayed_gitlab_delivery_gets_the_earlier_sync() -> None:
    body, sink = fixture("gitlab_push"), RecordingSink()
    headers = headers_of("gitlab-signed", body)
    async with receiving(sink, [WHSEC]) as client:
        first = await client.send(Delivery(headers, body))
        again = await client.send(Delivery(headers, body))
    assert (first.status, again.status) == (202, 200)
    assert (again.body["verdict"], again.body["sync"]) == ("duplicate", first.body["sync"])


async def test_a_gitlab_without_its_signing_secret_here_may_still_send_the_token() -> None:
    body = fixture("gitlab_push")
    headers = headers_of("gitlab-signed", body) | {"X-Gitlab-Token": PLAIN.decode()}
    async with receiving(RecordingSink(), [PLAIN]) as client:
        assert (await client.send(Delivery(headers, body))).status == 202
    headers["webhook-signature"] = "v1,AAAA"  # with it, the signature alone counts
    assert (await send(RecordingSink(), headers, body)).status == 401


async def test_of_a_tag_gitlab_announces_the_commit_and_of_a_deletion_none() -> None:
    sink = RecordingSink()
    for file, event in (("gitlab_tag", "Tag Push Hook"), ("gitlab_delete", "Push Hook")):
        await send(sink, headers_of("gitlab", fixture(file), event), fixture(file))
    told = [(p.ref, p.after, p.deleted) for p in sink.pushes]
    assert told == [("refs/tags/v1.4.0", AFTER, False), ("refs/heads/main", None, True)]


async def test_several_refs_of_a_bitbucket_cloud_push_are_one_delivery() -> None:
    body, sink = fixture("bitbucket_cloud_many"), RecordingSink()
    answer = await send(sink, headers_of("bitbucket-cloud", body), body)
    assert (answer.status, sink.syncs) == (202, 1)
    assert [(p.ref, p.after, p.deleted) for p in sink.pushes] == [
        ("refs/heads/feature", "c" * 40, False),
        ("refs/heads/old", None, True),
        ("refs/heads/main", AFTER, False),
        ("refs/tags/v1.4.0", AFTER, False),
    ]


async def test_a_push_of_no_ref_is_ignored() -> None:
    body, sink = fixture("bitbucket_cloud_none"), RecordingSink()
    answer = await send(sink, headers_of("bitbucket-cloud", body), body)
    assert (answer.status, answer.body["reason"]) == (200, "the push changes no ref")
    document = json.loads(fixture("azure_devops_push"))
    document["resource"]["refUpdates"] = []
    body = json.dumps(document).encode()
    answer = await send(sink, headers_of("azure-devops", body), body)
    assert (answer.status, answer.body["reason"]) == (200, "the push changes no ref")
    assert not sink.syncs


@pytest.mark.parametrize(
    ("sender", "file", "wanted"),
    [
        (
            "bitbucket-server",
            "bitbucket_server_many",
            [("refs/tags/v1.4.0", "c" * 40), ("refs/heads/main", None)],
        ),
        ("azure-devops", "azure_devops_many", [("refs/heads/old", None), ("refs/tags/v1", AFTER)]),
    ],
)
async def test_several_refs_are_told_in_order(
    sender: str, file: str, wanted: list[tuple[str, str | None]]
) -> None:
    body, sink = fixture(file), RecordingSink()
    assert (await send(sink, headers_of(sender, body), body)).status == 202
    assert [(p.ref, p.after) for p in sink.pushes] == wanted


async def test_bitbucket_servers_test_connection_is_answered() -> None:
    body, sink = fixture("bitbucket_server_ping"), RecordingSink()
    answer = await send(sink, headers_of("bitbucket-server", body, "diagnostics:ping"), body)
    assert (answer.status, answer.body["verdict"]) == (200, "pong")


async def test_azures_secret_may_be_the_password_or_user_and_password() -> None:
    body = fixture("azure_devops_push")
    headers = {**headers_of("azure-devops", body)}
    async with receiving(RecordingSink(), [b"emptybox:" + PLAIN]) as client:
        assert (await client.send(Delivery(headers, body))).status == 202
    async with receiving(RecordingSink(), [b"other:" + PLAIN]) as client:
        answer = await client.send(Delivery(headers, body))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="webhook"')


@pytest.mark.parametrize("text", ["Basic", "Basic ", "Basic ä", "Basic !!", "basic bm9jb2xvbg=="])
async def test_broken_basic_authentication_is_refused(text: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": text}
    sink = RecordingSink()
    answer = await send(sink, headers, fixture("azure_devops_push"))
    assert answer.status == 401
    assert not sink.syncs


async def test_the_token_in_docker_hubs_url_must_be_right() -> None:
    body = fixture("docker_hub_push")
    for query, status in (("?token=wrong", 401), ("?token=", 400), ("?tokens=x", 400), ("", 400)):
        answer = await send(RecordingSink(), headers_of("docker-hub", body), body, query)
        assert answer.status == status, query


async def test_a_generic_body_of_any_shape_is_a_hint() -> None:
    sink = RecordingSink()
    for number, body in enumerate((b"", b"{}", b"deploy please", b"[1]", b'{"ref": "x"}', b"\xff\x00")):
        headers = headers_of("generic", body) | {"X-Delivery": str(number)}
        assert (await send(sink, headers, body)).status == 202
    assert [hint.delivery for hint in sink.hints] == ["0", "1", "2", "3", "4", "5"]


async def test_a_header_of_ones_own_may_carry_the_signature() -> None:
    body = push_document(after=AFTER)
    headers = headers_of("generic", body)
    headers["X-Build-Seal"] = headers.pop("X-Signature-256")
    answer = await send(RecordingSink(), headers, body)
    assert answer.status == 400
    sink = RecordingSink()
    async with receiving(sink, [PLAIN], forges=forges("x-build-seal")) as client:
        assert (await client.send(Delivery(headers, body))).status == 202
    assert sink.pushes[0].after == AFTER


@pytest.mark.parametrize("action", ["deleted", "edited", "unpublished", None])
async def test_a_release_that_is_taken_back_is_no_news(action: str | None) -> None:
    document = {**json.loads(fixture("github_release")), "action": action}
    body, sink = json.dumps(document).encode(), RecordingSink()
    answer = await send(sink, headers_of("github", body, "release"), body)
    assert (answer.status, answer.body["verdict"]) == (200, "ignored")


@pytest.mark.parametrize("sender", [*PUSHES, "harbor", "oci-registry"])
@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 100_000, b"\xff", b"null", b"{}", b"[]", b'"x"'])
async def test_a_proved_body_that_makes_no_sense_is_no_accident(sender: str, body: bytes) -> None:
    sink = RecordingSink()
    answer = await send(sink, headers_of(sender, body), body)
    assert answer.status in ((202,) if sender.startswith("generic") else (200, 400))
    assert not sink.pushes


async def test_names_that_are_not_ascii_arrive_whole() -> None:
    sink = RecordingSink()
    for sender in PUSHES:
        body = fixture(PUSHES[sender][1]).decode()
        body = body.replace("refs/heads/main", "refs/heads/größe/雪").replace(
            '"name": "main"', '"name": "größe/雪"'
        )
        await send(sink, headers_of(sender, body.encode()), body.encode())
    assert [push.ref for push in sink.pushes] == ["refs/heads/größe/雪"] * len(PUSHES)


def test_each_sender_is_told_from_the_others() -> None:
    for sender, (name, file, _) in PUSHES.items():
        found = tell_apart(_insensitive(headers_of(sender, fixture(file))))
        assert found is not None
        assert found.name == name


def _insensitive(headers: dict[str, str]) -> dict[str, str]:
    from multidict import CIMultiDict

    return CIMultiDict(headers)  # type: ignore[return-value]
