"""HTTP/2 clients of a port without a server: a real protocol implementation (h2) asks, and is refused."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.events import RequestsAnswered
from agent.traffic.http2 import (
    _GRPC,
    BLOCK_MAX,
    FRAME_MAX,
    PREFACE,
    Error,
    Flag,
    Kind,
    NotHttp2,
    Refusal,
    frame,
)
from tests.traffic.support import DEADLINE, connect
from tests.traffic.test_responder import responding

Headers = list[tuple[str, str]]
PLAIN: Headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
GRPC: Headers = [
    (":method", "POST"), (":path", "/pkg.Service/Call"), (":scheme", "http"), (":authority", "x"),
    ("content-type", "application/grpc+proto"), ("te", "trailers"),
]  # fmt: skip


def client() -> h2.connection.H2Connection:
    made = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    made.initiate_connection()
    return made


def told(events: list[h2.events.Event]) -> dict[int, dict[str, str]]:
    """The headers of each answer by stream."""
    return {
        event.stream_id or 0: {str(k): str(v) for k, v in event.headers or []}
        for event in events
        if isinstance(event, h2.events.ResponseReceived)
    }


def goodbye(events: list[h2.events.Event]) -> tuple[int | None, int | None]:
    """Error code and last stream of the GOAWAY."""
    (event,) = [event for event in events if isinstance(event, h2.events.ConnectionTerminated)]
    return int(event.error_code or 0), event.last_stream_id


async def talk(port: int, speaker: h2.connection.H2Connection) -> list[h2.events.Event]:
    """Send what the client has to say, and read to the end of the connection."""
    loop = asyncio.get_running_loop()
    events: list[h2.events.Event] = []
    with await connect(port) as sock:
        async with asyncio.timeout(DEADLINE):
            await loop.sock_sendall(sock, speaker.data_to_send())
            while data := await loop.sock_recv(sock, 65536):
                events += speaker.receive_data(data)
                await loop.sock_sendall(sock, speaker.data_to_send())
    return events


async def test_a_grpc_call_is_answered_unavailable_in_trailers_only() -> None:
    async with responding() as (port, facts):
        speaker = client()
        speaker.send_headers(1, GRPC)
        speaker.send_data(1, b"\0\0\0\0\0", end_stream=True)
        events = await talk(port, speaker)
        assert told(events) == {
            1: {
                ":status": "200",
                "content-type": "application/grpc",
                "grpc-status": "14",
                "grpc-message": "this service is being updated, try again in 30 s",
            }
        }
        assert [e.stream_id for e in events if isinstance(e, h2.events.StreamEnded)] == [1]
        assert goodbye(events) == (h2.errors.ErrorCodes.NO_ERROR, 1)
    assert sum(fact.count for fact in facts if isinstance(fact, RequestsAnswered)) == 1


async def test_any_other_request_is_answered_503_and_come_back_later() -> None:
    async with responding() as (port, _):
        speaker = client()
        speaker.send_headers(1, PLAIN, end_stream=True)
        assert told(await talk(port, speaker)) == {
            1: {":status": "503", "retry-after": "30", "cache-control": "no-store"}
        }


async def test_requests_that_come_together_are_all_answered_and_count() -> None:
    async with responding() as (port, facts):
        speaker = client()
        for stream in (1, 3, 5):
            speaker.send_headers(stream, GRPC, end_stream=True)  # from the second on by reference
        events = await talk(port, speaker)
        assert {headers["grpc-status"] for headers in told(events).values()} == {"14"}
        assert set(told(events)) == {1, 3, 5}
        assert goodbye(events) == (0, 5)
    assert sum(fact.count for fact in facts if isinstance(fact, RequestsAnswered)) == 3


async def test_a_large_request_with_continuations_and_a_body_that_still_comes_is_answered() -> None:
    async with responding() as (port, _):
        speaker = client()
        speaker.send_headers(1, [*PLAIN, ("x-long", "~" * 9000)], priority_weight=9)
        speaker.send_data(1, bytes(16000))
        events = await talk(port, speaker)
        assert told(events)[1][":status"] == "503"
        assert not any(isinstance(event, h2.events.StreamReset) for event in events)


async def test_a_preface_in_single_bytes_is_understood() -> None:
    loop = asyncio.get_running_loop()
    async with responding() as (port, _):
        speaker = client()
        speaker.send_headers(1, PLAIN, end_stream=True)
        with await connect(port) as sock:
            for byte in speaker.data_to_send():
                await loop.sock_sendall(sock, bytes([byte]))
                await asyncio.sleep(0)
            events: list[h2.events.Event] = []
            async with asyncio.timeout(DEADLINE):
                while data := await loop.sock_recv(sock, 65536):
                    events += speaker.receive_data(data)
        assert told(events)[1][":status"] == "503"


async def test_pings_are_answered_while_a_request_is_waited_for() -> None:
    loop = asyncio.get_running_loop()
    async with responding() as (port, _):
        speaker = client()
        speaker.ping(b"12345678")
        with await connect(port) as sock:
            await loop.sock_sendall(sock, speaker.data_to_send())
            events: list[h2.events.Event] = []
            async with asyncio.timeout(DEADLINE):
                while not any(isinstance(event, h2.events.PingAckReceived) for event in events):
                    events += speaker.receive_data(await loop.sock_recv(sock, 65536))


SETTINGS = frame(Kind.SETTINGS, 0, 0, b"")
HUGE = frame(Kind.CONTINUATION, 0, 1, bytes(FRAME_MAX))
BROKEN = [
    (frame(Kind.PING, 0, 0, bytes(8)), Error.PROTOCOL_ERROR),  # no settings first
    (SETTINGS + frame(Kind.SETTINGS, 0, 0, b"123"), Error.FRAME_SIZE_ERROR),
    (SETTINGS + frame(Kind.SETTINGS, 0, 1, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.PING, 0, 0, b"1"), Error.FRAME_SIZE_ERROR),
    (SETTINGS + frame(Kind.HEADERS, Flag.END_HEADERS, 2, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.HEADERS, Flag.END_HEADERS, 0, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PADDED, 1, b"\x09x"), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.HEADERS, Flag.END_HEADERS | Flag.PRIORITY, 1, b"123"), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.HEADERS, 0, 1, b"") + SETTINGS, Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.HEADERS, 0, 1, b"") + frame(Kind.CONTINUATION, 4, 3, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.PUSH_PROMISE, 0, 1, b""), Error.PROTOCOL_ERROR),
    (SETTINGS + frame(Kind.PING, 0, 0, bytes(FRAME_MAX + 1)), Error.FRAME_SIZE_ERROR),
    (SETTINGS + frame(Kind.HEADERS, 0, 1, b"x") + HUGE, Error.ENHANCE_YOUR_CALM),
]


@pytest.mark.parametrize(("data", "error"), BROKEN)
def test_who_breaks_the_protocol_is_told_so_and_left(data: bytes, error: Error) -> None:
    refusal = Refusal(1)
    answer = refusal.receive(PREFACE + data)
    assert refusal.done
    assert answer.endswith(frame(Kind.GOAWAY, 0, 0, bytes(4) + int(error).to_bytes(4, "big")))


def test_trailers_of_an_answered_request_are_no_other_request() -> None:
    refusal = Refusal(1)
    headers = frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"")
    trailers = frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, b"")
    refusal.receive(PREFACE + SETTINGS + headers + trailers)
    assert (refusal.answered, refusal.done) == (1, True)


def test_what_is_no_preface_is_refused_at_its_first_wrong_byte() -> None:
    refusal = Refusal(1)
    assert refusal.receive(PREFACE[:10]) == b""
    with pytest.raises(NotHttp2):
        refusal.receive(b"X")


def test_the_mark_of_grpc_is_the_text_and_its_huffman_code() -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    assert (b"application/grpc", encoder.encode(b"application/grpc")) == _GRPC


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_whatever_raise_or_pile_up(pieces: list[bytes]) -> None:
    refusal = Refusal(1)
    refusal.receive(PREFACE)
    for piece in pieces:
        refusal.receive(piece)
        assert len(refusal._buffer) <= FRAME_MAX + 9 + 60
        if refusal.done:
            break


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=BLOCK_MAX // 8)
        ),
        max_size=30,
    )
)
def test_no_frames_whatever_raise_or_pile_up(frames: list[tuple[int, int, int, bytes]]) -> None:
    refusal = Refusal(1)
    refusal.receive(PREFACE + SETTINGS)
    for kind, flags, stream, payload in frames:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        refusal.receive(head + payload)
        if refusal.done:
            break
        assert refusal._open is None or len(refusal._open[1]) <= BLOCK_MAX
