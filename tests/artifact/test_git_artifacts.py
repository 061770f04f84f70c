"""git+http:// and git+ssh:// artifacts, with the agent's own Git client, against real servers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.config import Settings
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.domain.git_reference import Reference, parse
from agent.git_artifacts import GitPacker
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.kit.git_server import Content, Executable, Forge, Link, Repository
from tests.kit.ssh_server import Sshd


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(tmp_path / "forge") as forge:
        yield forge


@pytest.fixture
async def team(forge: Forge) -> Repository:
    return await forge.repository("app.git")


@pytest.fixture
async def artifacts(store: Store, tmp_path: Path) -> AsyncIterator[Artifacts]:
    async with Artifacts(store, git=GitPacker(Settings(data=tmp_path))) as running:
        yield running
    assert_no_traces(store)


def at(team: Repository, commit: str, path: str) -> str:
    return f"git+{team.url}@{commit}//{path}"


async def bring(artifacts: Artifacts, url: str) -> Path:
    async with artifacts.deliver(await artifacts.pin(spec(url)), "web") as delivery:
        return await delivery.published()


async def fail(artifacts: Artifacts, url: str) -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(artifacts, url)
    return caught.value


async def test_a_directory_of_a_commit_becomes_a_release(artifacts: Artifacts, team: Repository) -> None:
    files: dict[str, Content] = {
        "dist/bin/web": Executable("1.0"),
        "dist/latest": Link("bin/web"),
        "README": "not this",
    }
    commit = await team.put(files)
    tree = await bring(artifacts, at(team, commit, "dist"))
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["bin", "bin/web", "latest"]
    assert (tree / "latest").read_text() == "1.0"
    assert (tree / "bin/web").stat().st_mode & 0o777 == 0o755


async def test_a_commit_is_asked_for_once_and_an_equal_directory_is_the_same_release(
    artifacts: Artifacts, team: Repository, forge: Forge
) -> None:
    first = await team.put({"dist/web": "1"})
    second = await team.put({"README": "changed"})
    tree = await bring(artifacts, at(team, first, "dist"))
    asked = len(forge.requests)
    assert await bring(artifacts, at(team, first, "dist")) == tree
    assert len(forge.requests) == asked
    assert await bring(artifacts, at(team, second, "dist")) == tree
    assert len(forge.requests) > asked


async def test_a_file_of_a_commit_is_taken_like_a_download_of_its_name(
    artifacts: Artifacts, team: Repository
) -> None:
    data = release(b"1.0")
    commit = await team.put({"dist/web 1.tar.gz": data, "bin/tool": "#!/bin/sh\n"})
    tree = await bring(artifacts, at(team, commit, "dist/web%201.tar.gz"))
    assert (tree / "bin/web").read_bytes() == b"1.0"
    tree = await bring(artifacts, at(team, commit, "bin/tool"))
    assert (tree / "bin/web").read_bytes() == b"#!/bin/sh\n"


async def test_a_checksum_that_is_given_beside_the_commit_counts(
    artifacts: Artifacts, team: Repository
) -> None:
    commit = await team.put({"tool": "1"})
    url = at(team, commit, "tool")
    async with artifacts.deliver(spec(url, b"2"), "web") as delivery:
        with pytest.raises(Permanent) as caught:
            await delivery.published()
    assert caught.value.reason == "ChecksumMismatch"
    async with artifacts.deliver(spec(url, b"1"), "web") as delivery:
        assert (await delivery.published()).is_dir()
    assert (await artifacts.pin(spec(url))).checksum.hex == hashlib.sha256(b"1").hexdigest()


async def test_a_mirror_may_be_of_another_kind(artifacts: Artifacts, team: Repository) -> None:
    commit = await team.put({"tool": "1"})
    mirrors = (at(team, commit, "tool"),)
    wanted = msgspec.structs.replace(spec("http://127.0.0.1:1/tool", b"1"), mirrors=mirrors)
    async with artifacts.deliver(wanted, "web") as delivery:
        assert ((await delivery.published()) / "bin/web").read_bytes() == b"1"


async def test_what_is_missing_is_told_apart(artifacts: Artifacts, team: Repository, forge: Forge) -> None:
    commit = await team.put({"tool": "1"})
    missing = await fail(artifacts, at(team, commit, "other"))
    assert (type(missing), missing.reason) == (Permanent, "ArtifactNotFound")
    unknown = await fail(artifacts, at(team, "0" * 39 + "1", "tool"))
    assert (type(unknown), unknown.reason) == (Transient, "CommitNotFound")
    nobody = await fail(artifacts, f"git+{forge.url}/nobody.git@{commit}//tool")
    assert (type(nobody), nobody.reason) == (OperatorNeeded, "RepositoryNotFound")
    assert (await fail(artifacts, f"git+{team.url}@main//tool")).reason == "UrlInvalid"


async def test_credentials_that_name_no_host_are_for_the_state_repository_alone(
    store: Store, team: Repository, forge: Forge, tmp_path: Path
) -> None:
    commit = await team.put({"tool": "1"})
    forge.logins = {"ada": "a-long-token-of-tests"}
    file = tmp_path / "credentials"
    async with Artifacts(store, git=GitPacker(Settings(data=tmp_path, credentials_file=file))) as artifacts:
        file.write_text("ada:a-long-token-of-tests\n")
        assert (await fail(artifacts, at(team, commit, "tool"))).reason == "GitAuth"
        file.write_text(forge.url.replace("//", "//ada:a-long-token-of-tests@") + "\n")
        assert (await bring(artifacts, at(team, commit, "tool"))).is_dir()


async def test_a_repository_is_reached_over_ssh_with_the_agents_deploy_key(
    store: Store, team: Repository, tmp_path: Path
) -> None:
    commit = await team.put({"tool": "1"})
    async with Sshd(tmp_path / "ssh") as sshd:
        sshd.allow(sshd.key("deploy"))
        settings = Settings(data=tmp_path, ssh_key=sshd.key("deploy"), ssh_known_hosts=(sshd.known_hosts(),))
        async with Artifacts(store, git=GitPacker(settings)) as artifacts:
            tree = await bring(artifacts, f"git+{sshd.url(team.path)}@{commit}//tool")
    assert (tree / "bin/web").read_bytes() == b"1"


async def test_without_a_git_client_the_scheme_is_not_known(store: Store) -> None:
    async with Artifacts(store) as artifacts:
        assert (await fail(artifacts, f"git+https://h/r@{'0' * 40}//x")).reason == "SchemeUnsupported"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("git+https://h/a/b.git@{id}//c/d", ("https://h/a/b.git", "c/d")),
        ("git+ssh://git@h:22/a@b@{id}//c//./d%20e/", ("ssh://git@h:22/a@b", "c/d e")),
        ("git+http://u:p@h/a@{id}", ("http://u:p@h/a", "")),
        ("git+https://h/a@{id}/c", None),
        ("git+https://h@{id}//c", None),
        ("git+https://h/a@{id}//../c", None),
        ("git+https://h/a@{id}//%2e%2e/c", None),
        ("git+https://h/a@{id}//c%00d", None),
        ("git+https://h/a@main//c", None),
        ("git+file:///a@{id}//c", None),
    ],
)
def test_an_address_names_repository_commit_and_path(url: str, wanted: Sequence[str] | None) -> None:
    for commit in ("ab" * 20, "cd" * 32):
        if wanted is None:
            with pytest.raises(ValueError, match="write git"):
                parse(url.format(id=commit))
        else:
            assert parse(url.format(id=commit)) == Reference(wanted[0], commit, wanted[1])
