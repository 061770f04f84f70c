"""A real Git server behind TLS: authorities, client certificates, proxies, mirrors, rewritten addresses."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded, Transient
from agent.source.git.access import HttpAccess
from agent.source.git.failover import RETURN, Failover
from agent.source.git.remote import GitRemote
from agent.source.git.transport import Repository as Place
from tests.kit.certificates import certificate
from tests.kit.git_server import Forge, Repository
from tests.kit.hostile_git import failure
from tests.kit.relays import Proxy, tls_front


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The server's certificate, which is its own authority."""
    return certificate(tmp_path)


@pytest.fixture
async def secure(forge: Forge, own: Path) -> AsyncIterator[str]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own)
    async with tls_front(forge.port, tls) as url:
        yield url


async def test_a_private_authority_is_trusted_when_it_is_named(
    state: Repository, secure: str, own: Path
) -> None:
    commit = await state.put({"a": "1"})
    url = f"{secure}/{state.name}"
    async with GitRemote(url) as remote:
        refused = await failure(remote)
        assert refused.reason == "GitTls"
        assert "--git-ca" in refused.info.remedy
    async with GitRemote(url, http=HttpAccess(authority=own)) as remote:
        with await remote.resolve("main", commit) as snapshot:
            assert snapshot.read("a") == b"1"


async def test_a_file_that_is_no_certificate_is_told(secure: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("nonsense")
    for access in (HttpAccess(authority=bad), HttpAccess(certificate=bad)):
        async with GitRemote(f"{secure}/x", http=access) as remote:
            refused = await failure(remote)
        assert (type(refused), refused.reason) == (OperatorNeeded, "GitTls")
        assert refused.info.where == str(bad)


async def test_a_client_certificate_is_shown_and_read_again_when_it_changes(
    forge: Forge, state: Repository, own: Path, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1"})
    (tmp_path / "client").mkdir()
    client = certificate(tmp_path / "client")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own)
    tls.load_verify_locations(client)
    tls.verify_mode = ssl.CERT_REQUIRED
    shown = tmp_path / "shown.pem"
    shown.write_bytes(own.read_bytes())
    async with tls_front(forge.port, tls) as url:
        async with GitRemote(f"{url}/{state.name}", http=HttpAccess(own, shown)) as remote:
            assert (await failure(remote)).reason == "GitUnavailable"
            shown.write_bytes(client.read_bytes())
            assert await remote.ls_ref("main") == commit


async def test_a_proxy_is_gone_through_with_user_and_password(
    state: Repository, secure: str, own: Path
) -> None:
    commit = await state.put({"a": "1"})
    async with Proxy("ada:hunter2").running() as proxy:
        through = proxy.url.replace("http://", "http://ada:hunter2@")
        async with GitRemote(f"{secure}/{state.name}", http=HttpAccess(own, proxy=through)) as remote:
            assert await remote.ls_ref("main") == commit
        assert proxy.asked == [f"CONNECT {secure.removeprefix('https://')}"]
        async with GitRemote(f"{secure}/{state.name}", http=HttpAccess(own, proxy=proxy.url)) as remote:
            refused = await failure(remote)
            assert (type(refused), refused.reason) == (OperatorNeeded, "GitAuth")
            assert "proxy" in str(refused)
    async with GitRemote(f"{secure}/{state.name}", http=HttpAccess(own, proxy=through)) as remote:
        away = await failure(remote)
        assert (type(away), away.reason) == (Transient, "GitUnavailable")
        assert "the proxy cannot be reached" in str(away)
        assert "hunter2" not in str(away) + repr(remote.where)


# --- other places ---------------------------------------------------------------------------------


async def test_an_address_is_rewritten_by_the_longest_beginning_that_fits(state: Repository) -> None:
    commit = await state.put({"a": "1"})
    base = state.url.removesuffix(state.name)
    rewrites = (("https://git.example/", "http://127.0.0.1:1/"), ("https://git.example/org/", base))
    async with GitRemote(
        f"https://git.example/org/{state.name}", http=HttpAccess(rewrites=rewrites)
    ) as remote:
        assert await remote.ls_ref("main") == commit


async def test_credentials_by_host_go_to_their_host_only(
    forge: Forge, state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1"})
    forge.logins = {"ada": "hun ter2"}
    login = tmp_path / "logins"
    place = forge.url.removeprefix("http://")
    login.write_text(f"https://eve:other@git.example\n\nhttp://ada:hun%20ter2@{place}/state\n")
    async with GitRemote(state.url, credentials=login) as remote:
        assert (await failure(remote)).reason == "GitAuth"
        login.write_text(f"https://eve:other@git.example\nhttp://ada:hun%20ter2@{place}\n")
        assert await remote.ls_ref("main") == commit
    login.write_text("ada:hun ter2\n")
    async with GitRemote("http://127.0.0.1:1/x", credentials=login, mirrors=[state.url]) as remote:
        await failure(remote)
    assert forge.authorizations[-1] == ""


# --- mirrors --------------------------------------------------------------------------------------


async def test_a_mirror_is_asked_when_the_first_place_is_away(
    forge: Forge, state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1"})
    async with Forge(tmp_path / "first") as first:
        other = await first.repository("state.git")
        await state.git("push", "-q", str(other.path), "HEAD")
        async with GitRemote(other.url, mirrors=[state.url]) as remote:
            assert remote.where == other.url
            assert await remote.ls_ref("main") == commit
            assert forge.requests == []
            await first.stop()
            newer = await state.put({"a": "2"})
            with await remote.resolve("main", newer) as snapshot:
                assert snapshot.read("a") == b"2"
            assert await remote.earlier(newer, 2) == [commit]
            await forge.stop()
            assert (await failure(remote)).reason == "GitUnavailable"


async def test_the_first_place_is_returned_to_after_a_while(state: Repository) -> None:
    commit = await state.put({"a": "1"})
    now = 0.0
    async with GitRemote(f"file://{state.path}") as good, GitRemote("file:///nowhere") as bad:
        places: list[Place] = [bad._repository, good._repository]
        failover = Failover(places, 10.0, lambda: now)
        assert (await failover.refs(["HEAD"]))["HEAD"].commit == commit
        places[0] = good._repository
        places[1] = bad._repository
        assert await failover.refs(["HEAD"])  # the second one fails now: round to the first
        places.reverse()
        assert await failover.refs(["HEAD"])
        places.reverse()
        now = RETURN + 1
        assert (await failover.refs(["HEAD"]))["HEAD"].commit == commit
        with pytest.raises(OperatorNeeded, match="no Git repository"):
            await Failover([bad._repository, bad._repository], 10.0).refs(["HEAD"])


async def test_a_place_that_never_answers_takes_its_share_only(state: Repository, silent: str) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(f"{silent}/x", mirrors=[state.url], deadline=6.0) as remote:
        assert await remote.ls_ref("main") == commit
