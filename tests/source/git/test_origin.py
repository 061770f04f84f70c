"""Whom the client believes and where it lets itself be sent: certificates, redirects, proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.source.git.access import HttpAccess
from agent.source.git.http import RESULT_TYPE
from agent.source.git.remote import GitRemote
from tests.kit.certificates import certificate
from tests.kit.hostile import Answer, Asked, HostileServer, whole
from tests.kit.hostile_git import ADVERTISEMENT, REFS, A, always, failure, git_server, sends


async def test_a_certificate_is_believed_only_if_its_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    async with HostileServer(git_server(sends(whole(REFS, RESULT_TYPE))), tls=tls) as server:
        async with GitRemote(f"{server.url}/x.git") as remote:
            caught = await failure(remote)
        assert (type(caught), caught.reason) == (OperatorNeeded, "GitTls")
        assert "self-signed" in str(caught)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with GitRemote(f"{server.url}/x.git") as remote:
            assert await remote.ls_ref("main") == A


async def test_tls_spoken_to_a_plain_server_is_transient() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with GitRemote(f"https://127.0.0.1:{port}/x.git") as remote:
            caught = await failure(remote)
    assert caught.reason == "GitUnavailable"
    assert "TLS" in str(caught)


# --- redirects -----------------------------------------------------------------------------------


def redirecting(to: Callable[[str], str | None], status: str = "301 Moved") -> Answer:
    """Redirects a GET to `to(path)`; None answers it."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        target = to(asked.path)
        if target is not None:
            writer.write(whole(b"", "text/html", status=status, headers={"Location": target}))
        elif asked.method == "GET":
            writer.write(ADVERTISEMENT)
        else:
            writer.write(whole(REFS, RESULT_TYPE))

    return answer


async def test_a_redirect_within_the_origin_is_followed_and_remembered() -> None:
    def to(path: str) -> str | None:
        return "/new/x.git/info/refs?service=git-upload-pack" if path.startswith("/old") else None

    async with HostileServer(redirecting(to)) as server, GitRemote(f"{server.url}/old") as remote:
        assert await remote.ls_ref("main") == A
        assert await remote.ls_ref("main") == A
    assert [(a.method, a.path.partition("?")[0]) for a in server.asked] == [
        ("GET", "/old/info/refs"),
        ("GET", "/new/x.git/info/refs"),
        ("POST", "/new/x.git/git-upload-pack"),
        ("POST", "/new/x.git/git-upload-pack"),
    ]


async def test_a_redirect_to_another_origin_is_refused_and_hears_no_password() -> None:
    async with HostileServer(always(ADVERTISEMENT)) as other:
        target = f"{other.url}/x.git/info/refs?service=git-upload-pack"
        async with HostileServer(redirecting(lambda _: target)) as server:
            url = server.url.replace("http://", "http://ada:hunter2@")
            async with GitRemote(f"{url}/x.git") as remote:
                caught = await failure(remote)
        assert (type(caught), caught.reason) == (OperatorNeeded, "RedirectRefused")
        assert other.url in str(caught)
        assert "hunter2" not in str(caught)
        assert other.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1:1/info/refs",
        "http://u:p@127.0.0.1/info/refs",
        "//evil.example/info/refs",
        "ftp://x/info/refs",
    ],
)
async def test_other_ways_out_of_the_origin_are_refused(target: str) -> None:
    async with HostileServer(redirecting(lambda _: target)) as server:
        async with GitRemote(f"{server.url}/x.git") as remote:
            assert (await failure(remote)).reason in ("RedirectRefused", "GitProtocol")
        assert len(server.asked) == 1


async def test_redirects_in_a_circle_and_to_nowhere_end() -> None:
    for to in (
        lambda path: path,
        lambda _: "/login",
        lambda _: "http://[::1/info/refs",
        lambda _: "",
    ):
        async with HostileServer(redirecting(to)) as server, GitRemote(f"{server.url}/x.git") as remote:
            assert (await failure(remote)).reason == "GitProtocol"
            assert len(server.asked) <= 4


async def test_a_command_is_never_redirected_but_the_server_is_asked_anew_where_it_is() -> None:
    moved = False

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        new = asked.path.startswith("/new/x.git")
        if moved and not new:
            place = asked.path.replace("/x.git", "/new/x.git")
            writer.write(whole(b"", "text/html", status="308 Moved", headers={"Location": place}))
        elif asked.method == "GET":
            writer.write(ADVERTISEMENT)
        else:
            writer.write(whole(REFS, RESULT_TYPE))

    async with HostileServer(answer) as server, GitRemote(f"{server.url}/x.git") as remote:
        assert await remote.ls_ref("main") == A
        moved = True
        assert await remote.ls_ref("main") == A
    assert [(a.method, a.path.partition("?")[0]) for a in server.asked] == [
        ("GET", "/x.git/info/refs"),
        ("POST", "/x.git/git-upload-pack"),
        ("POST", "/x.git/git-upload-pack"),
        ("GET", "/x.git/info/refs"),
        ("GET", "/new/x.git/info/refs"),
        ("POST", "/new/x.git/git-upload-pack"),
    ]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(ADVERTISEMENT if asked.method == "GET" else whole(REFS, RESULT_TYPE))

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with HostileServer(answer) as server, GitRemote(f"{server.url}/x.git") as remote:
        assert await remote.ls_ref("main") == A
        assert "cookie" not in server.asked[0].headers
        assert server.asked[0].headers["git-protocol"] == "version=2"


async def test_a_redirect_that_the_settings_map_is_followed_there(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text("ada:hunter2\n")
    async with HostileServer(git_server(sends(whole(REFS, RESULT_TYPE)))) as new:
        target = "https://new.example/org/x.git/info/refs?service=git-upload-pack"
        rewrites = (("https://new.example/", f"{new.url}/"),)
        async with HostileServer(redirecting(lambda _: target)) as old:
            url = f"{old.url}/x.git"
            async with GitRemote(url, credentials=login, http=HttpAccess(rewrites=rewrites)) as remote:
                assert await remote.ls_ref("main") == A
        assert [asked.path.partition("?")[0] for asked in new.asked] == [
            "/org/x.git/info/refs",
            "/org/x.git/git-upload-pack",
        ]
