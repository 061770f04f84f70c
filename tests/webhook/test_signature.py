"""What is not proved genuine gets 401, and nothing of it is looked at."""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path

import pytest

from tests.kit.forges import FORGES, Delivery, deliver, fixture
from tests.kit.receiving import Answer, RecordingSink, receiving
from webhook.signature import SecretsInvalid, read_secrets

SECRET = b"s3cret"
HEADERS = {
    "github": "X-Hub-Signature-256",
    "gitea": "X-Gitea-Signature",
    "forgejo": "X-Forgejo-Signature",
    "gogs": "X-Gogs-Signature",
}


def genuine(forge: str, *, form: bool = False) -> Delivery:
    return deliver(forge, fixture(f"{forge}_push"), SECRET, form=form)


async def refused(delivery: Delivery, reason: str, **options: object) -> Answer:
    """Send it: it must be refused by a problem with this reason, and start nothing."""
    sink = RecordingSink()
    async with receiving(sink, **options) as client:  # type: ignore[arg-type]
        answer = await client.send(delivery)
    assert (answer.status, answer.body["reason"]) == (401, reason)
    assert answer.type == "application/problem+json"
    assert (answer.body["type"], answer.body["title"], answer.body["status"]) == (
        "about:blank",
        "Unauthorized",
        401,
    )
    assert answer.headers["WWW-Authenticate"]
    assert not sink.pushes
    assert [fact[:2] for fact in sink.facts] == [("rejected", reason)]
    return answer


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("forge", FORGES)
async def test_one_changed_byte_is_noticed(forge: str, form: bool) -> None:
    delivery = genuine(forge, form=form)
    delivery.body = delivery.body.replace(b"7a6d0f1b", b"7a6d0f1c", 1)
    await refused(delivery, "SignatureWrong")


@pytest.mark.parametrize("forge", FORGES)
async def test_a_form_sent_as_json_is_refused(forge: str) -> None:
    delivery = genuine(forge)
    delivery.headers["Content-Type"] = "application/x-www-form-urlencoded"
    delivery.body = b"payload=" + delivery.body
    await refused(delivery, "SignatureWrong")


@pytest.mark.parametrize("forge", FORGES)
async def test_another_secret_is_refused(forge: str) -> None:
    await refused(deliver(forge, fixture(f"{forge}_push"), b"other"), "SignatureWrong")


@pytest.mark.parametrize("forge", FORGES)
async def test_no_signature_is_refused(forge: str) -> None:
    delivery = genuine(forge)
    del delivery.headers[HEADERS[forge]]
    await refused(delivery, "SignatureMissing")


@pytest.mark.parametrize("forge", FORGES)
async def test_a_forge_without_a_secret_is_told_to_set_one(forge: str) -> None:
    answer = await refused(deliver(forge, fixture(f"{forge}_push"), None), "SignatureMissing")
    assert "set the secret" in answer.body["detail"]


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize(
    "text",
    ["ä" * 32, "0" * 63, "0" * 65, "g" * 64, " " + "0" * 63, "٠" * 64, "sha256=" + "0" * 60, "0x" * 32],
)
async def test_what_is_no_hex_digest_is_refused(forge: str, text: str) -> None:
    delivery = genuine(forge)
    delivery.headers[HEADERS[forge]] = ("sha256=" if forge == "github" else "") + text
    await refused(delivery, "SignatureMalformed")


@pytest.mark.parametrize("algorithm", ["sha1", "sha512"])
async def test_another_algorithm_is_refused(algorithm: str) -> None:
    delivery = genuine("github")
    digest = hmac.new(SECRET, delivery.body, algorithm).hexdigest()
    delivery.headers["X-Hub-Signature-256"] = f"{algorithm}={digest}"
    await refused(delivery, "SignatureMalformed")


async def test_the_old_sha1_signature_alone_is_not_enough() -> None:
    delivery = genuine("github")
    assert delivery.headers["X-Hub-Signature"]
    del delivery.headers["X-Hub-Signature-256"]
    await refused(delivery, "SignatureMissing")


async def test_the_signature_of_a_forgejo_counts_only_in_forgejos_header() -> None:
    delivery = genuine("forgejo")
    delivery.headers["X-Forgejo-Signature"] = "0" * 64
    await refused(delivery, "SignatureWrong")


async def test_during_a_rotation_old_and_new_secret_both_count() -> None:
    sink = RecordingSink()
    async with receiving(sink, [b"old", b"new"]) as client:
        for secret in (b"old", b"new"):
            answer = await client.send(deliver("github", fixture("github_push"), secret))
            assert answer.status == 202
        assert (await client.send(deliver("github", fixture("github_push"), b"oldest"))).status == 401


@pytest.mark.parametrize("secrets", [[], [b""], [b"", b""]])
async def test_without_a_secret_the_endpoint_is_closed_and_says_why(secrets: list[bytes]) -> None:
    """An empty secret is a key that everybody has."""
    sink = RecordingSink()
    delivery = genuine("github")
    forged = hmac.new(b"", delivery.body, hashlib.sha256).hexdigest()
    delivery.headers["X-Hub-Signature-256"] = f"sha256={forged}"
    async with receiving(sink, secrets) as client:
        answer = await client.send(delivery)
    assert (answer.status, answer.body["reason"]) == (503, "SecretMissing")
    assert not sink.pushes


async def test_an_unreadable_secret_closes_the_endpoint_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Missing(list[bytes]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(read_secrets(tmp_path / "secret"))

    async with receiving(RecordingSink(), Missing()) as client:
        for _ in range(3):
            answer = await client.send(genuine("github"))
            assert (answer.status, answer.body["reason"]) == (503, "SecretUnreadable")
            assert str(tmp_path) not in str(answer.body)
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 1


async def test_no_secret_reaches_the_log_or_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sink = RecordingSink()
    secret = b"a-very-secret-word"
    async with receiving(sink, [secret]) as client:
        good = await client.send(deliver("github", fixture("github_push"), secret))
        bad = await client.send(deliver("github", fixture("github_push"), b"another-secret-word"))
    told = caplog.text + str(good) + str(bad) + str(sink.facts)
    assert "secret-word" not in told


def test_a_secret_file_holds_one_secret_a_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"  first \r\n\n second\xff\n")
    assert read_secrets(file) == (b"first", b"second\xff")
    file.write_bytes(b"\n \n")
    assert read_secrets(file) == ()


@pytest.mark.parametrize("content", [b"x" * 70_000, b"x\n" * 17])
def test_a_secret_file_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(SecretsInvalid, match="secret"):
        read_secrets(file)
