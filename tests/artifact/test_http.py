from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.artifact.http import HttpSource
from agent.artifact.http_access import HttpAccess
from agent.artifact.limits import DEFAULTS, Limits
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer

HASTY = Limits(connect=5.0, idle=0.3, total=0.6)


async def fetch(source: HttpSource, url: str) -> bytes:
    """All bytes at `url`."""
    parts = []
    async with source.open(url) as body:
        assert body is not None
        while piece := await body.read():
            parts.append(piece)
    return b"".join(parts)


async def fail(url: str, limits: Limits = DEFAULTS) -> Failure:
    """The failure of fetching `url`."""
    source = HttpSource(limits)
    try:
        with pytest.raises(Failure) as caught:
            await fetch(source, url)
        return caught.value
    finally:
        await source.aclose()


def raw(*parts: bytes, close: bool = True) -> Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]:
    """An answer of these bytes."""

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if close:
            writer.close()

    return answer


async def test_bytes_come_as_they_are_over_one_connection(server: ArtifactServer) -> None:
    data = b"hello, compressible world " * 10_000
    url = server.put("small", data)
    source = HttpSource(DEFAULTS)
    for _ in range(5):
        assert await fetch(source, url) == data
    await source.aclose()
    served = await server.requests(5)
    assert {line.connection for line in served} == {served[0].connection}
    assert {line.accept_encoding for line in served} == {"identity"}


async def test_a_connection_is_warm_when_it_was_opened_before(server: ArtifactServer) -> None:
    url = server.put("small", b"x")
    source = HttpSource(DEFAULTS)
    await source.prewarm(f"{server.url}/not-there")
    assert await fetch(source, url) == b"x"
    await source.prewarm("http://127.0.0.1:1/refused")
    await source.prewarm("http://[not a url")
    await source.aclose()
    served = await server.requests(2)
    assert [line.method for line in served] == ["HEAD", "GET"]
    assert served[0].connection == served[1].connection


async def test_a_kept_connection_that_the_server_gave_up_is_replaced() -> None:
    used: set[asyncio.StreamWriter] = set()

    async def once(request: Asked, writer: asyncio.StreamWriter) -> None:
        if writer in used:
            writer.close()  # as a server does whose patience ended while the request was on its way
        else:
            used.add(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    async with HostileServer(once) as server:
        source = HttpSource(DEFAULTS)
        assert [await fetch(source, server.url) for _ in range(3)] == [b"x"] * 3
        await source.aclose()
        assert len(used) == 3


async def test_a_body_is_told_with_its_size_and_validator_and_not_sent_again_unchanged(
    server: ArtifactServer,
) -> None:
    url = server.put("small", b"one")
    source = HttpSource(DEFAULTS)
    async with source.open(url) as body:
        assert body is not None
        assert body.size == 3
        validator = body.validator
    assert validator
    async with source.open(url, unless=validator) as body:
        assert body is None
    server.put("small", b"other")
    async with source.open(url, unless=validator) as body:
        assert body is not None
    await source.aclose()
    assert [line.status for line in await server.requests(3)] == [200, 304, 200]


async def test_a_date_is_a_validator_too() -> None:
    date = b"Wed, 21 Oct 2015 07:28:00 GMT"

    async def answer(request: Asked, writer: asyncio.StreamWriter) -> None:
        if request.headers.get("if-modified-since") == date.decode():
            writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nLast-Modified: " + date + b"\r\n\r\nx")

    async with HostileServer(answer) as server:
        source = HttpSource(DEFAULTS)
        async with source.open(server.url) as body:
            assert body is not None
            assert body.validator == date.decode()
        async with source.open(server.url, unless=body.validator) as body:
            assert body is None
        await source.aclose()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (404, Permanent, "ArtifactNotFound"),
        (410, Permanent, "ArtifactNotFound"),
        (401, OperatorNeeded, "ArtifactDenied"),
        (403, OperatorNeeded, "ArtifactDenied"),
        (407, OperatorNeeded, "ProxyRefused"),
        (500, Transient, "ArtifactUnavailable"),
        (400, Permanent, "ArtifactRefused"),
        (418, Permanent, "ArtifactRefused"),
        (204, Permanent, "ArtifactRefused"),
        (304, Permanent, "ArtifactRefused"),
    ],
)
async def test_a_status_says_what_kind_of_failure_it_is(
    code: int, kind: type[Failure], reason: str, server: ArtifactServer
) -> None:
    failure = await fail(f"{server.url}/status/{code}")
    assert isinstance(failure, kind)
    assert failure.reason == reason
    assert f"/status/{code}" in str(failure)
    assert str(code) in failure.info.message


async def test_a_server_that_had_to_wait_too_long_is_asked_again_later() -> None:
    async with HostileServer(raw(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")) as server:
        assert isinstance(await fail(server.url), Transient)


async def test_retry_after_is_passed_on_as_seconds_or_date(server: ArtifactServer) -> None:
    assert (await fail(f"{server.url}/503")).retry_after == 7
    assert (await fail(f"{server.url}/429")).retry_after == 0
    assert (await fail(f"{server.url}/status/500")).retry_after is None
    for value, seconds in ((b"soon", None), (b"99999999999999999999", 3600), (b"\xb2", None)):
        async with HostileServer(raw(b"HTTP/1.1 503 No\r\nRetry-After: " + value + b"\r\n\r\n")) as hostile:
            assert (await fail(hostile.url)).retry_after == seconds


async def test_redirects_are_followed_but_not_for_ever(server: ArtifactServer) -> None:
    server.put("small", b"moved here")
    source = HttpSource(DEFAULTS)
    assert await fetch(source, f"{server.url}/moved") == b"moved here"
    await source.aclose()
    failure = await fail(f"{server.url}/loop")
    assert (failure.reason, "more than 5 redirects" in str(failure)) == ("RedirectRefused", True)
    assert len(await server.requests(8)) == 8


@pytest.mark.parametrize("path", ["ftp", "nowhere"])
async def test_a_redirect_to_what_is_not_http_is_refused(path: str, server: ArtifactServer) -> None:
    failure = await fail(f"{server.url}/{path}")
    assert isinstance(failure, Permanent)


async def test_credentials_of_a_url_go_to_its_own_server_only() -> None:
    async with HostileServer(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close=False)) as other:

        async def redirect(request: Asked, writer: asyncio.StreamWriter) -> None:
            target = "/here" if request.path == "/" else other.url + "/there"
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

        async with HostileServer(redirect) as first:
            source = HttpSource(DEFAULTS)
            await fetch(source, first.url.replace("http://", "http://user:secret@"))
            await source.aclose()
        expected = "Basic " + base64.b64encode(b"user:secret").decode()
        assert [asked.headers.get("authorization") for asked in first.asked] == [expected, expected]
        assert [asked.path for asked in other.asked] == ["/there"]
        assert "authorization" not in other.asked[0].headers


async def test_escapes_of_a_signed_url_arrive_as_they_were_written() -> None:
    async with HostileServer(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close=False)) as server:
        source = HttpSource(DEFAULTS)
        await fetch(source, server.url + "/a%2Fb/c%20d?sig=a%2Fb%3D&x=%7e")
        await fetch(source, server.url + "/größe x")
        await source.aclose()
        assert [asked.path for asked in server.asked] == [
            "/a%2Fb/c%20d?sig=a%2Fb%3D&x=%7e",
            "/gr%C3%B6%C3%9Fe%20x",
        ]


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500)),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_that_ends_early_is_a_transient_failure(
    answer: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with HostileServer(answer) as server:
        failure = await fail(server.url)
    assert isinstance(failure, Transient)


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
        raw(),
    ],
)
async def test_what_is_not_http_is_a_transient_failure(
    answer: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with HostileServer(answer) as server:
        failure = await fail(server.url + "/x?token=secret")
    assert isinstance(failure, Transient)
    assert "secret" not in str(failure)


@pytest.mark.parametrize(
    "answer",
    [
        raw(close=False),
        raw(b"HTTP/1.1 200 OK\r\nContent-Le", close=False),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome", close=False),
    ],
)
async def test_a_server_that_falls_silent_is_left(
    answer: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with HostileServer(answer) as server:
        failure = await fail(server.url, HASTY)
        assert (failure.reason, isinstance(failure, Transient)) == ("ArtifactTimeout", True)
        async with asyncio.timeout(10):
            await server.left.wait()


async def test_nobody_listening_is_a_transient_failure_that_shows_no_secrets() -> None:
    failure = await fail("http://user:secret@127.0.0.1:1/web?signature=secret")
    assert isinstance(failure, Transient)
    assert "http://127.0.0.1:1/web" in str(failure)
    assert "secret" not in str(failure)


@pytest.mark.parametrize("url", ["http://", "http://[::1/x", "http://127.0.0.1:99999/", "http:///path"])
async def test_a_url_that_is_none_is_a_permanent_failure(url: str) -> None:
    assert isinstance(await fail(url), Permanent)


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private


async def test_https_is_verified_and_never_left_for_http(tmp_path: Path) -> None:
    public, private = certificate(tmp_path)
    locations = (
        "location = /down { return 302 http://127.0.0.1:1/small; }\nlocation = /on { return 302 /small; }"
    )
    async with ArtifactServer(tmp_path, locations=locations, certificate=public, key=private) as server:
        url = server.put("small", b"over TLS")
        refused = await fail(url)
        assert isinstance(refused, OperatorNeeded)
        assert refused.reason == "CertificateRefused"
        source = HttpSource(DEFAULTS, HttpAccess(authority=public))
        assert await fetch(source, url) == b"over TLS"
        assert await fetch(source, f"{server.url}/on") == b"over TLS"
        with pytest.raises(Permanent, match="from https to http") as caught:
            await fetch(source, f"{server.url}/down")
        assert caught.value.reason == "RedirectRefused"
        await source.aclose()


async def test_a_source_left_in_the_middle_closes_its_connection() -> None:
    async with HostileServer(
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000), close=False)
    ) as server:
        source = HttpSource(DEFAULTS)
        async with source.open(server.url) as body:
            assert body is not None
            assert await body.read()
        async with asyncio.timeout(10):
            await server.left.wait()
        await source.aclose()
