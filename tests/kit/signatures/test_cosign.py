"""Cosign's formats; no package has cosign, so the signatures are made with the cryptography library."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.signatures import cosign
from agent.kit.signatures.refused import KeyInvalid, Refused
from tests.kit.cosigning import CosignKey

PAYLOAD = b"the content\n"
HASHED = hashlib.sha256(PAYLOAD).digest()
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
KEY, STRANGER = CosignKey(), CosignKey()
TRUSTED = cosign.parse_keys(KEY.public)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
@pytest.mark.parametrize("form", ["sign", "bundle"])
def test_a_file_s_signature_counts(kind: str, form: str) -> None:
    key = CosignKey(kind)
    keys = cosign.parse_keys(STRANGER.public + key.public)
    assert cosign.verify_file(getattr(key, form)(PAYLOAD), keys, HASHED) == keys[1]


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_an_image_s_signature_counts_in_both_forms(kind: str) -> None:
    key = CosignKey(kind)
    keys = cosign.parse_keys(key.public)
    document, signature = key.document(DIGEST)
    assert cosign.verify_image(document, signature, keys, DIGEST) == keys[0]
    assert cosign.verify_bundle(key.statement(DIGEST), keys, DIGEST) == keys[0]


def test_another_content_and_another_key_are_refused() -> None:
    for signature in (KEY.sign(b"other"), STRANGER.sign(PAYLOAD), STRANGER.bundle(PAYLOAD)):
        with pytest.raises(Refused):
            cosign.verify_file(signature, TRUSTED, HASHED)


def test_an_old_bundle_of_cosign_is_read() -> None:
    bundle = json.dumps({"base64Signature": KEY.sign(PAYLOAD).decode(), "cert": "x", "rekorBundle": {}})
    assert cosign.verify_file(bundle.encode(), TRUSTED, HASHED) == TRUSTED[0]


def test_a_document_about_another_image_is_refused() -> None:
    document, signature = KEY.document(OTHER)
    with pytest.raises(Refused, match="another image"):
        cosign.verify_image(document, signature, TRUSTED, DIGEST)
    with pytest.raises(Refused, match="another image"):
        cosign.verify_bundle(KEY.statement(OTHER), TRUSTED, DIGEST)


def test_a_document_that_was_changed_is_refused() -> None:
    document, signature = KEY.document(OTHER)
    with pytest.raises(Refused, match="wrong"):
        cosign.verify_image(document.replace(OTHER.encode(), DIGEST.encode()), signature, TRUSTED, DIGEST)


def test_what_the_key_attests_of_an_image_is_no_signature_of_it() -> None:
    with pytest.raises(Refused, match="another statement"):
        cosign.verify_bundle(KEY.statement(DIGEST, kind="https://spdx.dev/Document"), TRUSTED, DIGEST)
    document, signature = KEY.document(DIGEST, kind="a complaint")
    with pytest.raises(Refused, match="no document about an image"):
        cosign.verify_image(document, signature, TRUSTED, DIGEST)


def test_a_signed_file_that_looks_like_a_statement_is_no_statement() -> None:
    """Signing a file and signing a statement use one key: what stands in front tells them apart."""
    bundle = json.loads(KEY.statement(DIGEST))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"]["signatures"] = [{"sig": KEY.sign(payload).decode()}]
    with pytest.raises(Refused, match="wrong"):
        cosign.verify_bundle(json.dumps(bundle).encode(), TRUSTED, DIGEST)


def test_one_of_several_signatures_of_an_envelope_is_enough_but_not_of_any_number() -> None:
    bundle = json.loads(KEY.statement(DIGEST))
    good = bundle["dsseEnvelope"]["signatures"]
    bad = json.loads(STRANGER.statement(DIGEST))["dsseEnvelope"]["signatures"]
    bundle["dsseEnvelope"]["signatures"] = bad + good
    assert cosign.verify_bundle(json.dumps(bundle).encode(), TRUSTED, DIGEST) == TRUSTED[0]
    bundle["dsseEnvelope"]["signatures"] = bad * 100 + good
    with pytest.raises(Refused):
        cosign.verify_bundle(json.dumps(bundle).encode(), TRUSTED, DIGEST)


def test_a_bundle_with_two_signatures_of_a_file_is_refused() -> None:
    bundle = json.loads(KEY.bundle(PAYLOAD)) | {"base64Signature": KEY.sign(PAYLOAD).decode()}
    with pytest.raises(Refused, match="or two"):
        cosign.verify_file(json.dumps(bundle).encode(), TRUSTED, HASHED)


def test_ed25519_is_refused_for_files_which_it_would_have_to_read_whole() -> None:
    key = CosignKey("ed25519")
    with pytest.raises(Refused):
        cosign.verify_file(key.sign(PAYLOAD), cosign.parse_keys(key.public), HASHED)


@pytest.mark.parametrize("at", range(0, 96, 7))
def test_a_damaged_signature_is_refused(at: int) -> None:
    signature = bytearray(base64.b64decode(KEY.sign(PAYLOAD)))
    signature[at % len(signature)] ^= 0x10
    with pytest.raises(Refused):
        cosign.verify_file(base64.b64encode(signature), TRUSTED, HASHED)


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps({"dsseEnvelope": value}).encode()))
def test_no_bytes_crash_or_pass(data: bytes) -> None:
    with pytest.raises(Refused):
        cosign.verify_file(data, TRUSTED, HASHED)
    with pytest.raises(Refused):
        cosign.verify_bundle(data, TRUSTED, DIGEST)
    with pytest.raises(Refused):
        cosign.verify_image(data, data.hex(), TRUSTED, DIGEST)


@given(VALUES)
def test_no_signed_nonsense_crashes(value: object) -> None:
    document = json.dumps({"critical": value}).encode()
    with pytest.raises(Refused):
        cosign.verify_image(document, KEY.sign(document).decode(), TRUSTED, DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA",
        KEY.public + "-----BEGIN PUBLIC KEY-----\n",
    ],
    ids=["nothing", "nonsense", "no DER", "half", "one and a half"],  # a key is another one in each process
)
def test_what_is_no_key_is_told_so(text: str) -> None:
    with pytest.raises(KeyInvalid):
        cosign.parse_keys(text)
