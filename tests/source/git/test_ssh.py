"""The client over SSH, against a real sshd and the real git-upload-pack."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded, Transient
from agent.source.git.remote import GitRemote
from agent.ssh.access import SshAccess
from tests.kit.git_server import Forge, Repository
from tests.kit.hostile_git import failure
from tests.kit.ssh_server import Sshd, keygen, ssh_agent

OLD = "SetEnv GIT_PROTOCOL=version=0"  # as if git there were older than version 2


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Sshd]:
    async with Sshd(tmp_path / "ssh") as server:
        server.allow(server.key("deploy"))
        yield server


@pytest.fixture
def access(server: Sshd) -> SshAccess:
    return SshAccess(key=server.key("deploy"), known_hosts=(server.known_hosts(),))


async def test_a_commit_is_found_and_fetched_on_one_connection(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path
) -> None:
    first = await state.put({"state.yaml": "schema: 1\n"})
    second = await state.put({"a": "x" * 3_000_000})
    async with GitRemote(server.url(state.path), ssh=access) as remote:
        assert await remote.ls_ref("main") == second
        with await remote.resolve("main", second) as snapshot:
            await snapshot.export(tmp_path / "out")
        assert await remote.earlier(second, 5) == [first]
        with await remote.fetch(first) as older:
            assert older.read("a") is None
    assert (tmp_path / "out/a").stat().st_size == 3_000_000
    assert server.logins() == 1


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
async def test_a_server_that_refuses_version_2_is_spoken_to_in_version_0(
    forge: Forge, tmp_path: Path, object_format: str
) -> None:
    state = await forge.repository("old.git", object_format=object_format)
    first = await state.put({"a": "1"})
    second = await state.put({"a": "2"})
    await state.git("tag", "-a", "-m", "one", "v1", first)
    await state.publish("v1")
    async with Sshd(tmp_path / "old", options=[OLD]) as server:
        server.allow(server.key("deploy"))
        access = SshAccess(key=server.key("deploy"), known_hosts=(server.known_hosts(),))
        async with GitRemote(server.url(state.path), ssh=access) as remote:
            assert await remote.ls_ref("HEAD") == second
            assert await remote.ls_ref("v1") == first
            assert (await failure(remote, "nothing")).reason == "RefNotFound"
            with await remote.resolve("main", second) as snapshot:
                assert snapshot.read("a") == b"2"
                assert snapshot.log(5) == [second]
            assert await remote.earlier(second, 5) == [first]


async def test_an_empty_repository_is_understood_in_version_0(state: Repository, tmp_path: Path) -> None:
    async with Sshd(tmp_path / "old", options=[OLD]) as server:
        server.allow(server.key("deploy"))
        access = SshAccess(key=server.key("deploy"), known_hosts=(server.known_hosts(),))
        async with GitRemote(server.url(state.path), ssh=access) as remote:
            assert (await failure(remote)).reason == "RefNotFound"


# --- who we are -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_an_encrypted_deploy_key_is_opened_with_the_passphrase_of_a_file(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path, kind: str
) -> None:
    commit = await state.put({"a": "1"})
    key = server.key(f"sealed-{kind}", "open sesame", kind)
    server.allow(key)
    passphrase = tmp_path / "passphrase"
    sealed = replace(access, key=key, passphrase=passphrase)
    url = server.url(state.path)
    passphrase.write_text("wrong\n")
    async with GitRemote(url, ssh=sealed) as remote:
        refused = await failure(remote)
        assert (type(refused), refused.reason) == (OperatorNeeded, "GitAuth")
        assert "passphrase does not open" in str(refused)
        passphrase.write_text("open sesame\n")
        assert await remote.ls_ref("main") == commit
    async with GitRemote(url, ssh=replace(sealed, passphrase=None)) as remote:
        assert "encrypted" in str(await failure(remote))


async def test_the_keys_of_an_agent_are_used(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1"})
    async with ssh_agent(tmp_path, server.key("deploy")) as socket:
        async with GitRemote(server.url(state.path), ssh=replace(access, key=None, agent=socket)) as remote:
            assert await remote.ls_ref("main") == commit
    async with GitRemote(server.url(state.path), ssh=replace(access, key=None, agent=socket)) as remote:
        assert "agent does not answer" in str(await failure(remote))


async def test_a_key_the_server_does_not_know_is_named_in_the_error(
    server: Sshd, access: SshAccess, state: Repository
) -> None:
    async with GitRemote(server.url(state.path), ssh=replace(access, key=server.key("other"))) as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (OperatorNeeded, "GitAuth")
    assert "SHA256:" in str(refused)
    async with GitRemote(server.url(state.path), ssh=replace(access, key=None)) as remote:
        assert "--ssh-key" in (await failure(remote)).info.remedy


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
async def test_a_file_that_is_no_key_is_told(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path, content: str
) -> None:
    (tmp_path / "bad").write_text(content)
    async with GitRemote(server.url(state.path), ssh=replace(access, key=tmp_path / "bad")) as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (OperatorNeeded, "GitAuth")


# --- who they are ---------------------------------------------------------------------------------


async def test_a_host_that_is_not_known_is_refused_with_its_fingerprint(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path
) -> None:
    (tmp_path / "nobody").write_text("")
    unknown = replace(access, known_hosts=(tmp_path / "nobody",))
    async with GitRemote(server.url(state.path), ssh=unknown) as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (OperatorNeeded, "HostKeyRefused")
    assert server.fingerprint() in str(refused)
    assert str(tmp_path / "nobody") in refused.info.remedy
    assert server.logins() == 0


async def test_a_host_with_another_key_than_before_is_refused_with_its_fingerprint(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path
) -> None:
    for kind in ("ed25519", "rsa"):  # of the kind it has, and of one it has not
        public = keygen(tmp_path / kind, kind).with_suffix(".pub").read_text()
        access.known_hosts[0].write_text(f"[127.0.0.1]:{server.port} {public}")
        async with GitRemote(server.url(state.path), ssh=access) as remote:
            refused = await failure(remote)
        assert refused.reason == "HostKeyRefused"
        assert "not the one we know" in str(refused)
        assert server.fingerprint() in str(refused)
    assert server.logins() == 0


async def test_a_revoked_host_key_is_refused(server: Sshd, access: SshAccess, state: Repository) -> None:
    known = access.known_hosts[0]
    known.write_text(f"{known.read_text()}@revoked {known.read_text()}")
    async with GitRemote(server.url(state.path), ssh=access) as remote:
        assert (await failure(remote)).reason == "HostKeyRefused"


async def test_of_several_host_keys_the_known_one_is_asked_for(state: Repository, tmp_path: Path) -> None:
    commit = await state.put({"a": "1"})
    async with Sshd(tmp_path / "many", host_keys=("ed25519", "ecdsa", "rsa")) as server:
        server.allow(server.key("deploy"))
        for kind in ("rsa", "ecdsa"):
            access = SshAccess(key=server.key("deploy"), known_hosts=(server.known_hosts(kind=kind),))
            async with GitRemote(server.url(state.path), ssh=access) as remote:
                assert await remote.ls_ref("main") == commit


async def test_a_jump_host_is_gone_through_and_judged_as_strictly(
    server: Sshd, access: SshAccess, state: Repository, tmp_path: Path
) -> None:
    commit = await state.put({"a": "1"})
    async with Sshd(tmp_path / "jump") as jump:
        jump.allow(server.key("deploy"))
        through = replace(access, jumps=(f"{jump.user}@127.0.0.1:{jump.port}",))
        async with GitRemote(server.url(state.path), ssh=through) as remote:
            refused = await failure(remote)
            assert refused.reason == "HostKeyRefused"
            assert jump.fingerprint() in str(refused)
        both = replace(through, known_hosts=(*access.known_hosts, jump.known_hosts()))
        async with GitRemote(server.url(state.path), ssh=both) as remote:
            assert await remote.ls_ref("main") == commit
        assert jump.logins() == 1


# --- a server in trouble --------------------------------------------------------------------------


async def test_what_is_not_there_needs_an_operator(server: Sshd, access: SshAccess, tmp_path: Path) -> None:
    async with GitRemote(server.url(tmp_path / "nothing"), ssh=access) as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (OperatorNeeded, "RepositoryNotFound")
    assert "does not appear to be a git repository" in str(refused)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ERROR: Repository not found.", "RepositoryNotFound"),
        ("ERROR: Permission to org/state.git denied to deploy key", "GitAuth"),
        ("the disk is on fire", "GitRefused"),
    ],
)
async def test_the_words_of_a_forge_are_told(
    server: Sshd, access: SshAccess, state: Repository, words: str, reason: str
) -> None:
    server.allow(server.key("told-off"), f"command=\"echo '{words}' >&2; exit 1\"")
    told_off = replace(access, key=server.key("told-off"))
    async with GitRemote(server.url(state.path), ssh=told_off) as remote:
        refused = await failure(remote)
    assert refused.reason == reason
    assert words in str(refused)


async def test_a_server_that_was_restarted_is_found_again_silently(
    server: Sshd, access: SshAccess, state: Repository
) -> None:
    commit = await state.put({"a": "1"})
    async with GitRemote(server.url(state.path), ssh=access) as remote:
        assert await remote.ls_ref("main") == commit
        await server.stop()
        away = await failure(remote)
        assert (type(away), away.reason) == (Transient, "GitUnavailable")
        await server.start()
        assert await remote.ls_ref("main") == commit
        assert server.logins() == 2


async def test_a_server_that_says_nothing_is_left_at_the_deadline(
    server: Sshd, access: SshAccess, state: Repository
) -> None:
    commit = await state.put({"a": "1"})
    server.allow(server.key("silent"), 'command="exec sleep 60"')
    silent = replace(access, key=server.key("silent"))
    async with GitRemote(server.url(state.path), ssh=silent, deadline=3.0) as remote:
        assert (await failure(remote)).reason == "GitTimeout"
    async with GitRemote(server.url(state.path), ssh=access) as remote:
        assert await remote.ls_ref("main") == commit


async def test_a_server_that_says_nonsense_is_not_believed(
    server: Sshd, access: SshAccess, state: Repository
) -> None:
    server.allow(server.key("noise"), 'command="echo Welcome to this host; exec head -c 100000 /dev/zero"')
    async with GitRemote(server.url(state.path), ssh=replace(access, key=server.key("noise"))) as remote:
        refused = await failure(remote)
    assert (type(refused), refused.reason) == (Transient, "GitProtocol")


async def test_no_socket_is_left_open(server: Sshd, access: SshAccess, state: Repository) -> None:
    commit = await state.put({"a": "1"})
    before = len(os.listdir("/proc/self/fd"))
    async with GitRemote(server.url(state.path), ssh=access) as remote:
        (await remote.resolve("main", commit)).close()
    assert len(os.listdir("/proc/self/fd")) <= before
