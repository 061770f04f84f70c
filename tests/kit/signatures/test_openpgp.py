"""OpenPGP signatures of files, by the real gpg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kit.signatures import openpgp
from agent.kit.signatures.refused import Refused
from tests.kit.signing import GpgSigner, gpg_signer

DATA = b"line\n" * 10


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpgSigner]:
    with gpg_signer(tmp_path_factory.mktemp("ada")) as signer:
        yield signer


@pytest.fixture(scope="module")
def bob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpgSigner]:
    with gpg_signer(tmp_path_factory.mktemp("bob"), "Bob <bob@example.org>") as signer:
        yield signer


@pytest.fixture(scope="module")
def ring(ada: GpgSigner) -> openpgp.Keyring:
    return openpgp.read(ada.public())


@pytest.fixture(scope="module")
def made(ada: GpgSigner) -> bytes:
    return ada.sign(DATA)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "web.tar.gz"
    path.write_bytes(DATA)
    return path


def test_of_several_signatures_in_one_file_a_trusted_one_is_enough(
    ada: GpgSigner, bob: GpgSigner, ring: openpgp.Keyring, file: Path
) -> None:
    for made in (bob.sign(DATA) + ada.sign(DATA), ada.sign(DATA) + bob.sign(DATA)):
        assert openpgp.verify(file, made, ring) == ("Ada <ada@example.org>", ada.fingerprint)
    with pytest.raises(Refused, match="none of the keys"):
        openpgp.verify(file, bob.sign(DATA) * 2, ring)
    with pytest.raises(Refused, match="more than"):
        openpgp.verify(file, bob.sign(DATA) * 100 + ada.sign(DATA), ring)


def test_what_is_more_than_signatures_is_refused(ada: GpgSigner, ring: openpgp.Keyring, file: Path) -> None:
    made = ada.sign(DATA)
    for odd in (made + b"junk", made + ada.public(), ada.public() + made, made[:-3], b"", b"junk"):
        with pytest.raises(Refused):
            openpgp.verify(file, odd, ring)


def test_a_certificate_that_is_not_there_does_not_count(
    ada: GpgSigner, bob: GpgSigner, ring: openpgp.Keyring
) -> None:
    assert ring.counts(ada.fingerprint)
    assert not ring.counts(bob.fingerprint)


@settings(max_examples=25)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_crashes_or_makes_it_another_s(
    made: bytes, ada: GpgSigner, ring: openpgp.Keyring, file: Path, at: int, bit: int
) -> None:
    damaged = bytearray(made)
    damaged[at % len(damaged)] ^= 1 << bit
    try:
        name, _ = openpgp.verify(file, bytes(damaged), ring)
    except Refused:
        return
    assert name == "Ada <ada@example.org>"  # what is not signed, like hints, may change


@settings(max_examples=25)
@given(st.binary(max_size=300))
def test_no_bytes_crash_or_pass(ring: openpgp.Keyring, file: Path, data: bytes) -> None:
    with pytest.raises(Refused):
        openpgp.verify(file, data, ring)
