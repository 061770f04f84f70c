"""What a tar header says, against the same said in the plainest way."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.artifact.archive.headers import looks_like_tar, number
from agent.artifact.archive.refusal import Refused
from tests.kit.archives import header

BLOCKS = st.one_of(
    st.binary(min_size=512, max_size=512),
    st.builds(
        lambda byte, count: bytes([byte]) * count + bytes(512 - count),
        st.integers(0, 255),
        st.integers(0, 512),
    ),
)


@given(BLOCKS, st.integers(-1, 1))
def test_a_checksum_fits_when_it_is_the_sum_of_all_bytes(block: bytes, off: int) -> None:
    spaced = block[:148] + b" " * 8 + block[156:]
    told = sum(spaced) + off
    signed = sum(byte - 256 * (byte > 127) for byte in spaced)
    whole = block[:148] + b"%06o\0 " % told + block[156:]
    assert looks_like_tar(whole) == (told in (sum(spaced), signed))


@given(
    st.one_of(
        st.binary(min_size=12, max_size=12), st.text("01234567 \0", min_size=12, max_size=12).map(str.encode)
    )
)
def test_a_number_is_octal_digits_between_blanks_or_nothing(field: bytes) -> None:
    plain = re.fullmatch(rb" *([0-7]*) *(\0.*)?", field, re.DOTALL) or re.fullmatch(rb"([0-7]+)[ \0]*", field)
    if plain:
        assert number(field, b"name") == int(plain[1] or b"0", 8)
    elif not field[0] & 0x80:
        with pytest.raises(Refused):
            number(field, b"name")


@pytest.mark.parametrize("field", [b"00000000008\0", b"9", b"0_1", b"+1", b"0o17", b"1e3", b"\xb9"])
def test_what_python_would_take_for_a_number_is_refused(field: bytes) -> None:
    with pytest.raises(Refused):
        number(field.ljust(12, b"\0") if len(field) < 12 else field, b"name")


def test_a_header_of_ours_looks_like_tar() -> None:
    assert looks_like_tar(header("name", size=5))
