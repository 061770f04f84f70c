"""Minisign's format, by the real minisign."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.signatures import making, minisign
from agent.kit.signatures.refused import KeyInvalid, Refused
from tests.kit.signing import MinisignSigner, SshSigner

PAYLOAD = b"the content\n"
DIGEST = hashlib.blake2b(PAYLOAD).digest()


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> MinisignSigner:
    return MinisignSigner(tmp_path_factory.mktemp("ada"))


@pytest.fixture(scope="module")
def made(ada: MinisignSigner) -> bytes:
    return ada.sign(PAYLOAD, "-t", "version 1.2")


def refusal(signature: bytes, keys: str, digest: bytes = DIGEST) -> str:
    with pytest.raises(Refused) as caught:
        minisign.verify(signature, minisign.parse_keys(keys), digest)
    return str(caught.value)


def test_a_signature_counts_and_its_trusted_comment_is_read(ada: MinisignSigner, made: bytes) -> None:
    key, comment = minisign.verify(made, minisign.parse_keys(ada.public.read_text()), DIGEST)
    assert comment == "version 1.2"
    assert key.name in ada.public.read_text()
    assert str(key) == ada.text


def test_the_legacy_kind_is_refused_with_what_to_do(ada: MinisignSigner) -> None:
    assert "legacy kind; sign it again" in refusal(ada.sign(PAYLOAD, "-l"), ada.text)


def test_a_legacy_signature_of_the_digest_itself_is_no_prehashed_one(ada: MinisignSigner) -> None:
    """Who gets a key to sign 64 bytes of his choice has not signed the file of that digest."""
    assert "legacy" in refusal(ada.sign(DIGEST, "-l"), ada.text)


def test_a_legacy_signature_that_calls_itself_prehashed_is_wrong(ada: MinisignSigner) -> None:
    lines = ada.sign(PAYLOAD, "-l").split(b"\n")
    lines[1] = base64.b64encode(b"ED" + base64.b64decode(lines[1])[2:])
    assert "wrong" in refusal(b"\n".join(lines), ada.text)


def test_another_content_is_refused(ada: MinisignSigner, made: bytes) -> None:
    assert "not what was signed" in refusal(made, ada.text, hashlib.blake2b(b"other").digest())


def test_a_trusted_comment_cannot_be_changed(ada: MinisignSigner, made: bytes) -> None:
    assert "trusted comment" in refusal(made.replace(b"version 1.2", b"version 1.3"), ada.text)


def test_a_comment_of_another_signature_cannot_be_put_in(ada: MinisignSigner, made: bytes) -> None:
    other = ada.sign(b"other", "-t", "version 9").split(b"\n")
    lines = made.split(b"\n")
    assert "trusted comment" in refusal(b"\n".join([*lines[:2], *other[2:]]), ada.text)


def test_a_key_that_only_has_the_same_id_is_not_the_same_key(ada: MinisignSigner, made: bytes) -> None:
    real = minisign.parse_keys(ada.text)[0]
    fake = minisign.PublicKey(real.id, b"\x07" * 32)
    assert "wrong" in refusal(made, str(fake))
    assert minisign.verify(made, [fake, real], DIGEST)[0] == real


@pytest.mark.parametrize("more", [b"x\n", b"\n\n", b"untrusted comment: x\n"])
def test_what_stands_behind_a_signature_spoils_it(ada: MinisignSigner, made: bytes, more: bytes) -> None:
    assert "four lines" in refusal(made + more, ada.text)


@given(at=st.integers(0, 400), bit=st.integers(0, 7))
def test_no_flipped_bit_is_overlooked(ada: MinisignSigner, made: bytes, at: int, bit: int) -> None:
    data = bytearray(made)
    data[at % len(data)] ^= 1 << bit
    first, changed = made.index(b"\n"), at % len(data)
    try:
        minisign.verify(bytes(data), minisign.parse_keys(ada.text), DIGEST)
    except Refused:
        return
    ends = [made.index(b"\n", first + 1) - 1, len(made) - 2]
    # The untrusted comment, and the spare bits of base64's last digit, are nobody's.
    assert changed < first or any(abs(changed - end) <= 2 for end in ends)


@given(st.binary(max_size=400))
def test_no_bytes_crash_or_pass(data: bytes) -> None:
    with pytest.raises(Refused):
        minisign.verify(data, [minisign.PublicKey(b"12345678", b"\1" * 32)], DIGEST)


@given(st.text(max_size=100))
def test_no_text_crashes_the_reader_of_keys(text: str) -> None:
    try:
        minisign.parse_keys(text)
    except KeyInvalid:
        pass


def test_minisign_takes_what_we_sign(ada: MinisignSigner, tmp_path: Path) -> None:
    file = tmp_path / "web.tar.gz"
    file.write_bytes(PAYLOAD)
    made = making.sign_file(file, ada.key)
    assert made.suffix == ".minisig"
    assert ada.accepts(PAYLOAD, made.data)
    assert not ada.accepts(PAYLOAD + b"x", made.data)
    assert b"file:web.tar.gz" in made.data


def test_we_take_what_we_sign_with_ssh(tmp_path: Path) -> None:
    file = tmp_path / "web.tar.gz"
    file.write_bytes(PAYLOAD)
    bob = SshSigner(tmp_path / "bob")
    made = making.sign_file(file, bob.key)
    assert made.suffix == ".sig"
    assert bob.accepts(PAYLOAD, made.data)
    assert not bob.accepts(PAYLOAD + b"x", made.data)


@pytest.mark.parametrize("text", ["", "untrusted comment: x\n", "untrusted comment: x\nAAAA\n", "nonsense"])
def test_what_is_no_private_key_is_told_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(KeyInvalid):
        making.sign_file(tmp_path / "key", tmp_path / "key")


def test_a_comment_of_several_lines_is_refused(ada: MinisignSigner, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        making.sign_file(ada.key, ada.key, comment="a\nb")
