from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.keeper import wire
from agent.keeper.protocol import Decoder, Outbox, ProtocolError, encode, receive

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
messages = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


@given(messages, st.lists(st.integers(min_value=1, max_value=30)))
def test_frames_come_out_whole_and_in_order_however_the_stream_is_cut(
    sent: list[dict[str, Any]], cuts: list[int]
) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder, got = Decoder(), []
    for size in cuts:
        got += decoder.feed(stream[:size], [])
        stream = stream[size:]
    assert got + decoder.feed(stream, []) == sent


@given(st.binary(max_size=200))
def test_foreign_bytes_are_either_waited_on_or_refused(data: bytes) -> None:
    try:
        Decoder().feed(data, [])
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'"text"', b"[" * 100_000], ids=["cut", "list", "bytes", "text", "deep"]
)
def test_a_frame_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(wire.HEADER.pack(len(body)) + body, [])


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(wire.HEADER.pack(wire.FRAME_MAX + 1), [])
    with pytest.raises(ProtocolError):
        encode({"text": "x" * wire.FRAME_MAX})


def test_descriptors_stay_with_their_frames_when_the_socket_is_full() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        files = [os.memfd_create(f"file{n}") for n in range(3)]
        for n, fd in enumerate(files):
            os.write(fd, b"%d" % n)
        outbox = Outbox(ours)
        for n, fd in enumerate(files):
            outbox.put({"n": n, "pad": "x" * 300_000}, [fd])
            os.close(fd)  # the outbox has its own
        decoder = Decoder()
        got: list[int] = []
        numbers: list[int] = []
        while len(got) < 3:
            outbox.flush()
            try:
                for message in decoder.feed(*receive(theirs)):
                    got.append(message["n"])
                    (fd,) = decoder.take(1)
                    numbers.append(int(os.pread(fd, 10, 0)))
                    os.close(fd)
            except BlockingIOError:
                continue
        assert got == numbers == [0, 1, 2]
        assert outbox.size == 0
