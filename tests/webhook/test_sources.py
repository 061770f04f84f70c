"""Whom a request is counted to, and how a source that is refused again and again is put off."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.forges import deliver, push_document
from tests.kit.receiving import RecordingSink, receiving
from webhook.sources import SOURCES_MAX, Refusals, source_of

SECRET = b"s3cret"
PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # not through a proxy of ours
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),  # what the client wrote itself does not count
        ("10.0.0.1", "198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::/64"),
        ("fd00::1", "2001:db8::2", "2001:db8::/64"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("2001:db8:0:1::5", "", "2001:db8:0:1::/64"),
        ("", "198.51.100.7", ""),
        ("fe80::1%eth0", "", "fe80::/64"),
    ],
)
def test_the_source_is_the_last_address_that_is_no_trusted_proxys(
    peer: str, forwarded: str, source: str
) -> None:
    assert source_of(peer, forwarded, PROXIES) == source


@given(st.text(max_size=60), st.text(alphabet="0123456789abcdef.:, []%", max_size=200))
def test_any_text_is_a_source(peer: str, forwarded: str) -> None:
    assert isinstance(source_of(peer, forwarded, PROXIES), str)
    assert isinstance(source_of("10.0.0.1", forwarded, PROXIES), str)


def test_refusals_are_given_back_as_time_goes_by() -> None:
    now = [0.0]
    refusals = Refusals(burst=3, refill=0.5, clock=lambda: now[0])
    for _ in range(3):
        assert refusals.wait("a") == 0
        refusals.refused("a")
    assert refusals.wait("a") == pytest.approx(2.0)
    assert refusals.wait("b") == 0
    now[0] += 2.0
    assert refusals.wait("a") == 0
    now[0] += 1e6
    refusals.refused("a")
    refusals.refused("a")
    assert refusals.wait("a") == 0  # never more than the burst, never less than it


def test_the_memory_of_sources_is_bounded() -> None:
    refusals = Refusals(burst=1)
    for number in range(SOURCES_MAX + 100):
        refusals.refused(str(number))
    assert len(refusals) == SOURCES_MAX


async def test_a_source_that_was_refused_too_often_is_put_off_unread_and_others_are_not() -> None:
    sink = RecordingSink()
    loopback = [ip_network("127.0.0.0/8")]
    async with receiving(sink, proxies=loopback, refusals=Refusals(burst=3, refill=0.01)) as client:
        forged = deliver("github", push_document(), b"wrong")
        forged.headers["X-Forwarded-For"] = "198.51.100.7"
        for _ in range(3):
            assert (await client.send(forged)).status == 401
        answer = await client.send(forged)
        assert (answer.status, answer.body["reason"]) == (429, "TooManyRefused")
        assert int(answer.headers["Retry-After"]) > 0
        good = deliver("github", push_document(), SECRET)
        good.headers["X-Forwarded-For"] = "198.51.100.8"
        assert (await client.send(good)).status == 202
        good.headers["X-Forwarded-For"] = "198.51.100.7"
        assert (await client.send(good)).status == 429
    assert ("rejected", "TooManyRefused", "github") in sink.facts


async def test_what_is_proved_genuine_is_never_counted() -> None:
    sink = RecordingSink()
    async with receiving(sink, refusals=Refusals(burst=2, refill=0.0)) as client:
        for _ in range(10):
            assert (await client.send(deliver("gitea", push_document(), SECRET))).status == 202
