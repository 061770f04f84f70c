from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.domain.events import Bus, Event, RequestsAnswered
from agent.domain.spec import MaintenanceSpec
from agent.traffic.acceptor import Acceptor
from agent.traffic.http2 import PREFACE, Kind, begins, frame
from agent.traffic.page import Page, Progress
from agent.traffic.responder import HEAD_MAX, Responder, Tally
from tests.traffic.support import ask, body_of, connect, group_of, read_all, status_of


@asynccontextmanager
async def responding(deadline: float = 20.0, at_once: int = 1000) -> AsyncIterator[tuple[int, list[Event]]]:
    """A responder on a free port, and the facts it has published (all of them once left)."""
    bus, facts = Bus(), list[Event]()
    bus.subscribe(facts.append)
    tally = Tally("web", bus)
    page = Page(MaintenanceSpec(retry_after=29.5), lambda: Progress("Migrating"))
    responder = Responder(page, tally, at_once=at_once, deadline=deadline)
    acceptor = Acceptor[None]("test", lambda connection, _: responder.answer(connection))
    (listener,) = group_of(1)
    acceptor.watch(listener, None)
    try:
        yield listener.getsockname()[1], facts
    finally:
        await acceptor.aclose()
        tally.flush()
        listener.close()


def headers_of(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


async def test_an_answer_says_503_come_back_later_keep_nothing_and_closes() -> None:
    async with responding() as (port, _):
        answer = await ask(port)  # reads until the end: the connection was closed
        headers = headers_of(answer)
        assert status_of(answer) == 503
        assert headers["retry-after"] == "30"
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"
        assert headers["vary"] == "Accept"
        assert int(headers["content-length"]) == len(body_of(answer).encode())
        assert "date" in headers


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("text/html,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "text/plain; charset=utf-8"),
    ],
)
async def test_the_form_follows_the_accept_header(accept: str, media: str) -> None:
    async with responding() as (port, _):
        answer = await ask(port, f"GET /x HTTP/1.1\r\nHost: x\r\nACCEPT:{accept}\r\n\r\n".encode())
        assert headers_of(answer)["content-type"] == media
        assert "Migrating" in body_of(answer)


async def test_head_gets_the_length_and_no_body() -> None:
    async with responding() as (port, _):
        answer = await ask(port, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert int(headers_of(answer)["content-length"]) > 0
        assert body_of(answer) == ""


async def test_a_large_body_that_is_still_being_sent_does_not_tear_the_answer_away() -> None:
    async with responding() as (port, _):
        loop = asyncio.get_running_loop()
        with await connect(port) as client:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nExpect: 100-continue\r\n\r\n"
            await loop.sock_sendall(client, head)
            await loop.sock_sendall(client, bytes(3_000_000))
            client.shutdown(socket.SHUT_WR)
            assert status_of(await read_all(client)) == 503


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.0\n\n",
        b"\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
        b"M-SEARCH http://x/y?z HTTP/1.1\r\nA: b\r\n\r\n",
    ],
)
async def test_unusual_requests_are_requests(request_text: bytes) -> None:
    async with responding() as (port, _):
        assert status_of(await ask(port, request_text)) == 503


async def test_a_request_may_come_in_single_bytes() -> None:
    async with responding() as (port, _):
        with await connect(port) as client:
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n":
                await asyncio.get_running_loop().sock_sendall(client, bytes([byte]))
                await asyncio.sleep(0)
            assert status_of(await read_all(client)) == 503


async def test_a_head_beyond_the_bound_is_refused() -> None:
    async with responding() as (port, _):
        request = b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX
        assert status_of(await ask(port, request)) == 431


TLS_HELLO = bytes.fromhex("16030100c8010000c40303")
OTHERS = [
    b"",
    TLS_HELLO,
    b"PRI * HTTP/2.0\r\n\r\nSM",
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"GET /\r\n",
    b"\x00" * 50,
    b"EHLO x\r\n",
]


@pytest.mark.parametrize("greeting", OTHERS)
async def test_a_client_that_speaks_something_else_is_sent_nothing_and_closed_at_the_deadline(
    greeting: bytes,
) -> None:
    async with responding(deadline=0.05) as (port, facts):
        assert await ask(port, greeting) == b""
    assert facts == []


async def test_tls_without_a_certificate_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with responding(deadline=0.05) as (port, _):
        for _ in range(3):
            assert await ask(port, TLS_HELLO) == b""
    assert caplog.text.count("speak TLS") == 1


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_no_bytes_whatever_get_anything_but_a_whole_answer_or_silence(data: bytes) -> None:
    async def check() -> None:
        async with responding(deadline=0.02) as (port, _):
            try:
                answer = await ask(port, data)
            except ConnectionResetError:  # it was closed while we still sent
                return
            if begins(data) and len(data) >= len(PREFACE):
                assert answer.startswith(frame(Kind.SETTINGS, 0, 0, b""))
            else:
                assert answer == b"" or status_of(answer) in (431, 503)

    asyncio.run(check())


async def test_more_connections_than_are_looked_after_at_once_have_their_turn_later() -> None:
    async with responding(at_once=2, deadline=0.2) as (port, _):
        silent = [await connect(port) for _ in range(2)]
        assert status_of(await ask(port)) == 503
        for client in silent:
            client.close()


async def test_answers_are_told_in_batches_and_none_is_forgotten() -> None:
    async with responding() as (port, facts):
        await asyncio.gather(*(ask(port) for _ in range(40)))
    assert facts
    assert all(isinstance(fact, RequestsAnswered) and fact.how == "page" for fact in facts)
    assert sum(fact.count for fact in facts if isinstance(fact, RequestsAnswered)) == 40
    assert len(facts) < 40


async def test_a_tally_speaks_by_itself_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.traffic.responder.REPORT", 0.01)
    bus, heard = Bus(), asyncio.Event()
    bus.subscribe(lambda _: heard.set())
    tally = Tally("web", bus)
    tally.add("held", 0)
    tally.add("held", 3)
    async with asyncio.timeout(20):
        await heard.wait()
