from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.source.git.pktline import LENGTH_MAX, Decoder, Garbled, Mark, Packet, encode

packets = st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(Mark)), max_size=20)


def feed_in_pieces(data: bytes, cuts: list[int]) -> list[Packet]:
    decoder = Decoder()
    found: list[Packet] = []
    at = 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        found += decoder.feed(data[at:cut])
        at = cut
    assert decoder.idle
    return found


@given(packets, st.lists(st.integers(0, 10_000), max_size=20))
def test_packets_come_out_as_they_went_in_however_the_bytes_are_cut(
    sent: list[Packet], cuts: list[int]
) -> None:
    assert feed_in_pieces(encode(sent), cuts) == sent


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_any_bytes_are_packets_or_garbled_alike_in_whole_and_in_pieces(data: bytes, step: int) -> None:
    def read(pieces: list[bytes]) -> tuple[list[Packet], bool]:
        decoder = Decoder()
        found: list[Packet] = []
        try:
            for piece in pieces:
                found += decoder.feed(piece)
        except Garbled:
            return [], True
        return found, False

    whole, whole_bad = read([data])
    pieces, pieces_bad = read([data[at : at + step] for at in range(0, len(data), step)])
    assert whole_bad == pieces_bad
    assert whole == pieces


@given(packets)
def test_a_stream_cut_short_is_not_idle_or_lacks_packets(sent: list[Packet]) -> None:
    data = encode(sent)
    decoder = Decoder()
    found = decoder.feed(data[:-1])
    assert not sent or not decoder.idle or len(found) < len(sent)


@pytest.mark.parametrize("head", [b"0003", b"00g0", b"+00a", b" 00a", b"0_0a", b"fff1", b"ffff"])
def test_lengths_that_are_none_are_garbled(head: bytes) -> None:
    with pytest.raises(Garbled):
        Decoder().feed(head + b"x" * 10)


def test_the_longest_packet_passes_and_a_longer_one_is_not_made() -> None:
    longest = b"x" * (LENGTH_MAX - 4)
    assert Decoder().feed(encode([longest])) == [longest]
    with pytest.raises(ValueError, match="at most"):
        encode([longest + b"x"])
