"""The client against servers that are hostile, broken or not Git servers at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.source.git import address
from agent.source.git.client import ProtocolClient
from agent.source.git.http import ADVERTISEMENT_TYPE, RESULT_TYPE, HttpTransport
from agent.source.git.pktline import Mark, encode
from agent.source.git.remote import GitRemote
from tests.kit.git_objects import BLOB, entry, pack, varint
from tests.kit.hostile import Asked, HostileServer, beginning, chunk, whole
from tests.kit.hostile_git import REFS, A, Behave, always, failure, git_server, sends


async def hang(writer: asyncio.StreamWriter) -> None:
    """Say nothing, and keep the connection."""


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(beginning(RESULT_TYPE) + chunk(b"fff0"))
    while True:
        writer.write(chunk(b"x"))
        await writer.drain()
        await asyncio.sleep(0.01)


async def never_end(writer: asyncio.StreamWriter) -> None:
    """Well-formed refs without end."""
    writer.write(beginning(RESULT_TYPE))
    lines = encode([f"{A} refs/heads/main{n}\n".encode() for n in range(1000)])
    while True:
        writer.write(chunk(lines))
        await writer.drain()


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-A: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behave", [hang, drip, drip_headers], ids=lambda b: b.__name__)
@pytest.mark.parametrize("call", ["ls_ref", "fetch", "resolve", "earlier"])
async def test_a_server_that_hangs_or_drips_is_cut_off_at_the_deadline(behave: Behave, call: str) -> None:
    async with HostileServer(git_server(behave)) as server:
        async with GitRemote(f"{server.url}/x.git", deadline=0.3) as remote:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "ls_ref": lambda: remote.ls_ref("main"),
                "fetch": lambda: remote.fetch(A),
                "resolve": lambda: remote.resolve("main", A),
                "earlier": lambda: remote.earlier(A, 3),
            }
            with pytest.raises(Transient) as caught:
                await calls[call]()
            assert caught.value.reason == "GitTimeout"
        async with asyncio.timeout(5):
            await server.left.wait()


async def test_a_server_that_hangs_before_its_advertisement_is_cut_off() -> None:
    async with HostileServer(lambda _, writer: hang(writer)) as server:
        async with GitRemote(f"{server.url}/x.git", deadline=0.2) as remote:
            assert (await failure(remote)).reason == "GitTimeout"


async def test_refs_without_end_are_cut_off_by_their_size() -> None:
    async with HostileServer(git_server(never_end)) as server:
        async with GitRemote(f"{server.url}/x.git") as remote:
            caught = await failure(remote)
        assert caught.reason == "GitProtocol"
        assert "exceeds" in str(caught)
        async with asyncio.timeout(5):
            await server.left.wait()


async def test_a_pack_without_end_is_cut_off_by_its_size() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning(RESULT_TYPE))
        writer.write(chunk(encode([b"packfile\n"])))
        piece = chunk(encode([b"\x01" + bytes(60_000)]))
        while True:
            writer.write(piece)
            await writer.drain()

    async def chatter(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning(RESULT_TYPE))
        writer.write(chunk(encode([b"packfile\n"])))
        piece = chunk(encode([b"\x02" + bytes(60_000)]))
        while True:
            writer.write(piece)
            await writer.drain()

    for behave in (endless, chatter):
        async with HostileServer(git_server(behave)) as server:
            transport = HttpTransport(address.parse(f"{server.url}/x.git"))
            client = ProtocolClient(transport, pack_max=1 << 20)
            with pytest.raises(Permanent) as caught:
                await client.take(A, depth=1)
            assert caught.value.reason == "RepositoryTooLarge"
            await client.aclose()


async def test_an_advertisement_without_end_is_cut_off_by_its_size() -> None:
    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning(ADVERTISEMENT_TYPE))
        while True:
            writer.write(chunk(encode([b"x" * 1000])))
            await writer.drain()

    async with HostileServer(endless) as server, GitRemote(f"{server.url}/x.git") as remote:
        assert "exceeds" in str(await failure(remote))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "middle"),
        (b"003", "middle"),
        (REFS[:-4], "middle"),
        (REFS + REFS, "after its end"),
        (b"<html>", "pkt-line"),
        (encode([Mark.DELIMITER]), "mark"),
        (encode([b"ERR go \x1b[31maway\n"]), "refuses: go  \\[31maway"),
    ],
)
async def test_nonsense_is_transient_and_told(body: bytes, what: str) -> None:
    async with HostileServer(git_server(sends(whole(body, RESULT_TYPE)))) as server:
        async with GitRemote(f"{server.url}/x.git") as remote:
            caught = await failure(remote)
    assert isinstance(caught, Transient)
    assert caught.reason in ("GitProtocol", "GitRefused")
    with pytest.raises(Failure, match=what):
        raise caught


def fetched(data: bytes) -> bytes:
    return whole(encode([b"packfile\n", b"\x01" + data, Mark.FLUSH]), RESULT_TYPE)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fetched(b"not a pack"), "GitProtocol"),
        (fetched(pack([entry(BLOB, b"x")])), "GitProtocol"),  # sound, but not what was asked for
        (fetched(pack([varint(BLOB, 1 << 40)])), "RepositoryTooLarge"),
        (whole(encode([b"packfile\n", b"\x03died\n"]), RESULT_TYPE), "GitRefused"),
        (whole(encode([b"ERR upload-pack: not our ref\n"]), RESULT_TYPE), "CommitNotFound"),
        (whole(encode([b"packfile\n"]), RESULT_TYPE), "GitProtocol"),
        (whole(b"", "text/html"), "GitProtocol"),
        (whole(b"", RESULT_TYPE, status="503 Busy"), "GitUnavailable"),
        (whole(b"", RESULT_TYPE, headers={"Content-Encoding": "gzip"}), "GitProtocol"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: " + RESULT_TYPE.encode() + b"\r\nContent-Length: x\r\n\r\n",
            "GitProtocol",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "GitProtocol"),
    ],
)
async def test_bad_answers_to_a_fetch_have_their_reasons(answer: bytes, reason: str) -> None:
    async with HostileServer(git_server(sends(answer))) as server:
        async with GitRemote(f"{server.url}/x.git") as remote:
            with pytest.raises(Failure) as caught:
                await remote.fetch(A)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (whole(b"", "text/plain", status="500 Oops"), Transient, "GitUnavailable"),
        (whole(b"", "text/plain", status="429 Slow"), Transient, "GitUnavailable"),
        (whole(b"", "text/plain", status="403 No"), OperatorNeeded, "GitAuth"),
        (whole(b"", "text/plain", status="410 Gone"), OperatorNeeded, "RepositoryNotFound"),
        (whole(b"", "text/plain", status="418 Teapot"), Transient, "GitProtocol"),
        (whole(b"<html>hello</html>", "text/html"), OperatorNeeded, "GitServerUnsupported"),
        # what a dumb server answers, and a smart one of the days before version 2
        (whole(f"{A}\trefs/heads/main\n".encode(), "text/plain"), OperatorNeeded, "GitServerUnsupported"),
        (
            whole(
                encode(
                    [
                        b"# service=git-upload-pack\n",
                        Mark.FLUSH,
                        f"{A} HEAD\0thin-pack\n".encode(),
                        Mark.FLUSH,
                    ]
                ),
                ADVERTISEMENT_TYPE,
            ),
            OperatorNeeded,
            "GitServerUnsupported",
        ),
        (whole(b"0008ERR", ADVERTISEMENT_TYPE), Transient, "GitProtocol"),
        (whole(encode([b"version 2\n"])[:-3], ADVERTISEMENT_TYPE), Transient, "GitProtocol"),
    ],
)
async def test_servers_that_are_no_help_have_their_reasons(
    answer: bytes, kind: type[Failure], reason: str
) -> None:
    async with HostileServer(always(answer)) as server, GitRemote(f"{server.url}/x.git") as remote:
        caught = await failure(remote)
    assert (type(caught), caught.reason) == (kind, reason)
    assert len(server.asked) == 1
    assert not isinstance(caught, OperatorNeeded) or caught.info.remedy


async def test_how_long_to_wait_is_taken_from_the_server_within_reason() -> None:
    for text, wait in (
        ("7", 7.0),
        ("99999999", 3600.0),
        ("soon", None),
        ("Fri, 01 Jan 1990 00:00:00 GMT", 0.0),
    ):
        answer = whole(b"", "text/plain", status="503 Busy", headers={"Retry-After": text})
        async with HostileServer(always(answer)) as server, GitRemote(f"{server.url}/x.git") as remote:
            assert (await failure(remote)).retry_after == wait


async def test_connections_closed_without_an_answer_are_tried_a_few_times_only() -> None:
    async def close(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with HostileServer(close) as server, GitRemote(f"{server.url}/x.git") as remote:
        assert (await failure(remote)).reason == "GitUnavailable"
        assert 1 <= len(server.asked) <= 10


async def test_an_answer_that_breaks_off_is_transient() -> None:
    async def broken(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning(RESULT_TYPE) + chunk(REFS[:20]))
        await writer.drain()
        writer.close()

    async with HostileServer(git_server(broken)) as server, GitRemote(f"{server.url}/x.git") as remote:
        assert (await failure(remote)).reason == "GitUnavailable"
