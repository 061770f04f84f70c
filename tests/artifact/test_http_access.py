"""Who is asked over http(s), as whom, and by which way: mirrors, logins, headers, proxies, authorities."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest
from yarl import URL

from agent.artifact.artifacts import Artifacts
from agent.artifact.http import HttpSource
from agent.artifact.http_access import HttpAccess
from agent.artifact.http_proxy import proxy_for
from agent.artifact.limits import DEFAULTS
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.kit.mask import secrets
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.artifact.test_http import certificate, fetch
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer, whole
from tests.kit.relays import Proxy

PASSWORD = "a-long-password-of-tests"
ONLY_ADA = """
location /private/ {{ alias {root}/; auth_basic private; auth_basic_user_file {users}; }}
location = /away {{ return 302 {other}/stolen; }}
location = /on {{ return 302 /private/web.tar.gz; }}
"""


def basic(user: str, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def netrc(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def at(
    url: str, data: bytes, *, mirrors: tuple[str, ...] = (), headers: Mapping[str, str] | None = None
) -> ArtifactSpec:
    return msgspec.structs.replace(spec(url, data), mirrors=mirrors, headers=dict(headers or {}))


async def bring(artifacts: Artifacts, wanted: ArtifactSpec) -> bytes:
    async with artifacts.deliver(wanted, "web") as delivery:
        return ((await delivery.published()) / "bin/web").read_bytes()


async def fail(artifacts: Artifacts, wanted: ArtifactSpec) -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(artifacts, wanted)
    return caught.value


async def echo(request: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer with what came as Authorization and X-Token."""
    body = f"{request.headers.get('authorization')} {request.headers.get('x-token')}".encode()
    writer.write(whole(body, "text/plain"))


# -- mirrors ---------------------------------------------------------------------------------------


async def test_mirrors_are_tried_in_order_and_the_digest_decides(
    server: ArtifactServer, artifacts: Artifacts, caplog: pytest.LogCaptureFixture
) -> None:
    data = release(b"1.0")
    good, other = server.put("good", data), server.put("other", release(b"forged"))
    mirrors = (f"{server.url}/503", other, "http://127.0.0.1:1/down", good, f"{server.url}/never")
    assert await bring(artifacts, at(f"{server.url}/missing", data, mirrors=mirrors)) == b"1.0"
    paths = [line.path for line in await server.requests(4)]
    assert paths == ["/missing", "/503", "/other", "/good"]
    assert "is looked for at" in caplog.text
    assert "expected sha256" in caplog.text


async def test_when_every_place_fails_the_most_hopeful_failure_is_told(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release()
    missing, denied, busy = (f"{server.url}/{name}" for name in ("missing", "status/403", "503"))
    failure = await fail(artifacts, at(missing, data, mirrors=(denied, busy)))
    assert isinstance(failure, Transient)
    assert failure.retry_after == 7
    assert isinstance(await fail(artifacts, at(missing, data, mirrors=(denied,))), OperatorNeeded)
    failure = await fail(artifacts, at(missing, data, mirrors=(server.put("other", b"other"),)))
    assert failure.reason == "ArtifactNotFound"


async def test_no_mirror_is_asked_for_bytes_that_are_right_and_of_no_use(
    server: ArtifactServer, artifacts: Artifacts
) -> None:
    data = release()[:-40]
    url = server.put("broken.tar.gz", data)
    assert (await fail(artifacts, at(url, data, mirrors=(f"{url}?again",)))).reason == "ArchiveBroken"
    assert len(await server.requests(1)) == 1


async def test_a_damaged_copy_of_what_was_learned_is_fetched_again(
    server: ArtifactServer, artifacts: Artifacts, store: Store
) -> None:
    url = server.put("web.tar.gz", release(b"1.0"))
    pinned = await artifacts.pin(spec(url))
    store.blob(pinned.checksum.hex).write_bytes(b"damaged")
    assert await bring(artifacts, pinned) == b"1.0"


# -- logins and headers ----------------------------------------------------------------------------


@pytest.fixture
async def other() -> AsyncIterator[HostileServer]:
    """Another origin, which answers with what it was given."""
    async with HostileServer(echo) as running:
        yield running


@pytest.fixture
async def private(tmp_path: Path, other: HostileServer) -> AsyncIterator[ArtifactServer]:
    """An nginx that lets nobody but Ada in."""
    (tmp_path / "users").write_text(f"ada:{{PLAIN}}{PASSWORD}\n")
    locations = ONLY_ADA.format(root=tmp_path / "artifacts", users=tmp_path / "users", other=other.url)
    async with ArtifactServer(tmp_path, locations=locations) as running:
        yield running


async def test_a_login_of_the_netrc_file_opens_its_host_and_is_changed_by_changing_the_file(
    tmp_path: Path, store: Store, private: ArtifactServer
) -> None:
    data = release(b"1.0")
    private.put("web.tar.gz", data)
    url = f"{private.url}/private/web.tar.gz"
    file = netrc(tmp_path / "netrc", "machine 127.0.0.9 login ada password unused-one\n")
    async with Artifacts(store, http=HttpAccess(logins=file)) as artifacts:
        failure = await fail(artifacts, at(url, data))
        assert isinstance(failure, OperatorNeeded)
        assert (failure.reason, "give it a login" in str(failure)) == ("ArtifactDenied", True)
        netrc(file, f"machine 127.0.0.1:{private.port}\n  login ada\n  password a-wrong-password\n")
        assert "correct the login" in str(await fail(artifacts, at(url, data)))
        netrc(file, f"machine 127.0.0.1 login ada password {PASSWORD}\n")
        assert await bring(artifacts, at(f"{private.url}/on", data)) == b"1.0"
    assert PASSWORD not in secrets.text(f"it is {PASSWORD}, {basic('ada')}")
    assert basic("ada").split()[1] not in secrets.text(basic("ada"))
    assert_no_traces(store)


async def test_a_login_in_the_url_and_a_redirect_within_its_origin_go_together(
    artifacts: Artifacts, private: ArtifactServer
) -> None:
    data = release(b"1.0")
    private.put("web.tar.gz", data)
    url = f"{private.url}/on".replace("//", f"//ada:{PASSWORD}@")
    assert await bring(artifacts, at(url, data)) == b"1.0"


@pytest.mark.parametrize("given", ["netrc", "headers", "url"])
async def test_nothing_secret_follows_a_redirect_to_another_origin(
    given: str, tmp_path: Path, private: ArtifactServer, other: HostileServer
) -> None:
    text = f"machine 127.0.0.1:{private.port} login ada password {PASSWORD}\n"
    access = HttpAccess(logins=netrc(tmp_path / "netrc", text if given == "netrc" else ""))
    secret = {"X-Token": "secret-one", "Authorization": basic("ada")} if given == "headers" else {}
    user = f"ada:{PASSWORD}@" if given == "url" else ""
    source = HttpSource(DEFAULTS, access)
    async with source.open_with(secret, f"{private.url}/away".replace("//", f"//{user}")) as body:
        assert body is not None
        assert await body.read() == b"None None"
    await source.aclose()
    assert [request.path for request in other.asked] == ["/stolen"]


async def test_headers_go_to_the_origin_of_the_url_and_to_no_mirror_elsewhere(
    private: ArtifactServer, other: HostileServer, artifacts: Artifacts
) -> None:
    data = release(b"1.0")
    private.put("web.tar.gz", data)
    private.put("SHA256SUMS", f"{hashlib.sha256(data).hexdigest()}  web.tar.gz\n".encode())
    headers = {"Authorization": basic("ada"), "X-Token": "secret-one"}
    url = f"{private.url}/private/web.tar.gz"
    listed = Checksum(algorithm="sha256", url=f"{private.url}/private/SHA256SUMS")
    wanted = msgspec.structs.replace(
        at(f"{private.url}/missing", data, mirrors=(f"{other.url}/web", url), headers=headers),
        checksum=listed,
    )
    with pytest.raises(Permanent, match="no sha256 line for missing"):
        await artifacts.pin(wanted)  # of /missing
    pinned = await artifacts.pin(msgspec.structs.replace(wanted, url=url))
    missing = msgspec.structs.replace(wanted, checksum=pinned.checksum)
    assert await bring(artifacts, missing) == b"1.0"
    assert [request.headers.get("x-token") for request in other.asked] == [None]
    assert [request.headers.get("authorization") for request in other.asked] == [None]
    assert await artifacts.reach(msgspec.structs.replace(missing, url=url)) == len(data)


async def test_an_entry_default_gives_no_host_a_login(tmp_path: Path, other: HostileServer) -> None:
    file = netrc(tmp_path / "netrc", f"default login ada password {PASSWORD}\n")
    source = HttpSource(DEFAULTS, HttpAccess(logins=file))
    assert await fetch(source, other.url) == b"None None"
    await source.aclose()


@pytest.mark.parametrize("text", [None, "machine\n", "nonsense hidden-one\n", "\xff"])
async def test_a_file_of_logins_that_is_none_is_told_without_its_content(
    text: str | None, tmp_path: Path, other: HostileServer
) -> None:
    file = tmp_path / "netrc"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    source = HttpSource(DEFAULTS, HttpAccess(logins=file))
    with pytest.raises(OperatorNeeded) as caught:
        await fetch(source, other.url)
    await source.aclose()
    assert caught.value.reason == "LoginsInvalid"
    assert "hidden-one" not in str(caught.value)
    assert other.asked == []


# -- proxies and authorities -----------------------------------------------------------------------

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


async def test_plain_http_goes_through_the_proxy_with_its_login(
    environ: pytest.MonkeyPatch, server: ArtifactServer, other: HostileServer
) -> None:
    environ.setenv("http_proxy", other.url.replace("//", f"//ada:{PASSWORD}@"))
    source = HttpSource(DEFAULTS)
    assert await fetch(source, f"{server.url}/small") == b"None None"
    environ.setenv("NO_PROXY", "localhost,127.0.0.0/8")
    assert await fetch(source, server.put("small", b"direct")) == b"direct"
    await source.aclose()
    (request,) = other.asked
    assert request.path == f"{server.url}/small"
    assert request.headers["proxy-authorization"] == basic("ada")
    assert PASSWORD not in secrets.text(PASSWORD)


async def test_https_goes_through_a_tunnel_and_a_proxy_that_refuses_is_the_operators(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public, private = certificate(tmp_path)
    async with (
        ArtifactServer(tmp_path, certificate=public, key=private) as server,
        Proxy(f"ada:{PASSWORD}").running() as proxy,
    ):
        url = server.put("small", b"over TLS")
        source = HttpSource(DEFAULTS, HttpAccess(authority=public))
        environ.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//ada:{PASSWORD}@"))
        assert await fetch(source, url) == b"over TLS"
        assert proxy.asked == [f"CONNECT 127.0.0.1:{server.port}"]
        await source.aclose()
        for value, kind, reason in (
            (proxy.url, OperatorNeeded, "ProxyRefused"),
            ("socks5://127.0.0.1:1", OperatorNeeded, "ProxyRefused"),
            ("http://127.0.0.1:1", Transient, "ArtifactUnavailable"),
        ):
            environ.setenv("HTTPS_PROXY", value)
            with pytest.raises(kind) as caught:
                await fetch(source, url)
            assert caught.value.reason == reason
            assert "proxy" in str(caught.value)
            await source.aclose()


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("example.org", "http://a.example.org/x", True),
        (".example.org, b", "http://b/x", True),
        ("example.org", "http://example.com/x", False),
        ("10.0.0.0/8", "http://10.1.2.3:80/x", True),
        ("10.0.0.0/8,fd00::/8", "http://[fd00::1]/x", True),
        ("10.0.0.0/8,nonsense/99", "http://11.1.2.3/x", False),
        ("10.0.0.0/8", "http://ten.example/x", False),
        ("h:81", "http://h:80/x", False),
        ("h:81", "http://h:81/x", True),
        ("*", "http://anything/x", True),
    ],
)
def test_no_proxy_names_hosts_domains_networks_and_ports(
    environ: pytest.MonkeyPatch, no_proxy: str, url: str, direct: bool
) -> None:
    environ.setenv("HTTP_PROXY", "127.0.0.1:3128")
    environ.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(URL(url)) == {}) is direct
    assert proxy_for(URL("https://anything/x")) == {}


async def test_a_private_authority_is_trusted_beside_the_systems_and_read_again_when_it_changes(
    tmp_path: Path,
) -> None:
    public, private = certificate(tmp_path)
    file = tmp_path / "authorities.pem"
    async with ArtifactServer(tmp_path, certificate=public, key=private) as server:
        url = server.put("small", b"over TLS")
        source = HttpSource(DEFAULTS, HttpAccess(authority=file))
        for content in (None, b"no PEM", certificate_of_others(tmp_path)):
            if content is not None:
                file.write_bytes(content)
            with pytest.raises(OperatorNeeded) as caught:
                await fetch(source, url)
            assert caught.value.reason == "CertificateRefused"
        file.write_bytes(public.read_bytes() + file.read_bytes())
        assert await fetch(source, url) == b"over TLS"
        await source.aclose()


def certificate_of_others(directory: Path) -> bytes:
    """One that nobody shows."""
    (directory / "others").mkdir()
    return certificate(directory / "others")[0].read_bytes()


async def test_a_beginning_from_one_place_goes_on_at_a_mirror_with_the_same_bytes(
    server: ArtifactServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(17 << 20)
    url = server.put("web", data)

    async def breaks_off(request: Asked, writer: asyncio.StreamWriter) -> None:
        """The first part of the same file, under the same ETag, as mirrors of one tree serve it."""
        head = f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[: 5 << 20] if "range" not in request.headers else b"")
        await writer.drain()
        writer.close()

    plain = {"Accept-Encoding": "identity"}  # else nginx would compress, and tell a weak ETag
    monkeypatch.setattr("agent.artifact.resume._PAUSE", 0.001)
    async with aiohttp.ClientSession() as session, session.head(url, headers=plain) as answer:
        etag = answer.headers["ETag"]
    async with HostileServer(breaks_off) as broken, Artifacts(store) as artifacts:
        wanted = at(f"{broken.url}/web", data, mirrors=(url,))
        async with artifacts.deliver(wanted, "web") as delivery:
            assert ((await delivery.published()) / "bin/web").read_bytes() == data
    assert [line.status for line in await server.requests(2)] == [200, 206]
