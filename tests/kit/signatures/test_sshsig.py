"""SSH signatures by the real ssh-keygen."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.signatures import signers, sshsig
from agent.kit.signatures.refused import Refused
from agent.kit.signatures.signers import AllowedKey, SignersInvalid
from tests.kit.signing import SshSigner

PAYLOAD = b"tree 0\nauthor a\n\nwords\n"
NOON = 1_700_000_000  # 2023-11-14, 22:13:20 UTC


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> SshSigner:
    return SshSigner(tmp_path_factory.mktemp("keys") / "ada")


def verify(payload: bytes, signature: bytes, time: int, allowed: Sequence[AllowedKey]) -> AllowedKey:
    return sshsig.verify(signature, "git", time, allowed, lambda name: hashlib.new(name, payload).digest())


def refusal(signature: bytes, allowed: str, *, payload: bytes = PAYLOAD, time: int = NOON) -> Refused:
    with pytest.raises(Refused) as caught:
        verify(payload, signature, time, signers.parse(allowed))
    return caught.value


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
def test_a_signature_of_an_allowed_key_counts(tmp_path: Path, kind: str, hashed: str) -> None:
    signer = SshSigner(tmp_path / "bob", kind)
    signature = signer.sign(PAYLOAD, "git", "-O", f"hashalg={hashed}")
    key = verify(PAYLOAD, signature, NOON, signers.parse(signer.line()))
    assert key.principals == "bob@example.org"


def test_another_content_is_refused(ada: SshSigner) -> None:
    refused = refusal(ada.sign(PAYLOAD), ada.line(), payload=PAYLOAD + b"more")
    assert "wrong" in str(refused)
    assert refused.key == ada.fingerprint


def test_a_key_that_is_not_allowed_is_refused_and_named(ada: SshSigner, tmp_path: Path) -> None:
    refused = refusal(ada.sign(PAYLOAD), SshSigner(tmp_path / "bob").line())
    assert "not among" in str(refused)
    assert refused.key == ada.fingerprint


def test_a_signature_made_for_something_else_is_refused(ada: SshSigner) -> None:
    assert "namespace" in str(refusal(ada.sign(PAYLOAD, "file"), ada.line()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('namespaces="file"', "namespaces"),
        ('namespaces="file,g*"', ""),
        ('valid-before="20231114Z"', "not valid at the time"),
        ('valid-before="20231115Z"', ""),
        ('valid-after="20231115Z"', "not valid at the time"),
        ('valid-after=202311142213Z,valid-before="20231114221400Z"', ""),
        ('namespaces="git",valid-before="19990101"', "not valid at the time"),
    ],
)
def test_a_line_may_limit_what_its_key_signs_and_when(ada: SshSigner, options: str, words: str) -> None:
    if words:
        assert words in str(refusal(ada.sign(PAYLOAD), ada.line(options)))
    else:
        verify(PAYLOAD, ada.sign(PAYLOAD), NOON, signers.parse(ada.line(options)))


def test_of_several_lines_for_a_key_one_that_fits_is_enough(ada: SshSigner) -> None:
    text = f"# people\n\n{ada.line('valid-before=20200101')}{ada.line()}"
    verify(PAYLOAD, ada.sign(PAYLOAD), NOON, signers.parse(text))


def test_an_rsa_signature_over_sha1_is_refused(tmp_path: Path) -> None:
    signer = SshSigner(tmp_path / "rsa", "rsa")
    lines = signer.sign(PAYLOAD).split(b"\n")
    raw = base64.b64decode(b"".join(lines[1:-2]))
    weak = raw.replace(b"\0\0\0\x0crsa-sha2-512", b"\0\0\0\x07ssh-rsa")
    end = len(weak) - 5
    start = weak.rindex(b"\0\0\0\x07ssh-rsa") - 4
    weak = weak[:start] + (len(weak) - start - 4).to_bytes(4, "big") + weak[start + 4 :]
    assert end > 0
    text = b"\n".join([lines[0], base64.b64encode(weak), lines[-2]])
    assert "SHA-1" in str(refusal(text, signer.line()))


@pytest.mark.parametrize(
    "line",
    [
        "ada@example.org",
        "ada@example.org ssh-ed25519",
        "ada@example.org ssh-ed25519 !!!!",
        "ada@example.org ssh-ed25519 AAAA",
        "ada@example.org nonsense=1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        "ada@example.org cert-authority ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        "ada@example.org valid-before=soon ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    ],
)
def test_a_file_that_is_half_understood_is_refused_whole_with_the_line(ada: SshSigner, line: str) -> None:
    with pytest.raises(SignersInvalid, match="line 2"):
        signers.parse(ada.line() + line)


@given(st.text(max_size=80))
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        signers.parse(text)
    except SignersInvalid:
        pass


@given(data=st.binary(max_size=200), cut=st.integers(0, 300), at=st.integers(0, 200))
def test_no_damage_is_taken_for_a_signature(data: bytes, cut: int, at: int) -> None:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32
    raw = b"SSHSIG\0\0\0\x01" + _string(blob) + _string(b"git") + _string(b"") + _string(b"sha512")
    raw += _string(_string(b"ssh-ed25519") + _string(b"s" * 64))
    damaged = (raw[:at] + data + raw[at:])[:cut]
    text = b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(damaged) + b"\n-----END SSH SIGNATURE-----\n"
    with pytest.raises(Refused):
        verify(PAYLOAD, text, NOON, [AllowedKey("ada", blob)])


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
