"""A release is pushed to a real Git server, past others who push, with the state's layout as it was."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli.demo.git_server import git
from agent.cli.exit_codes import FAILED, NOT_NOW, OK, USAGE
from agent.publish import repository as publishing
from tests.kit.git_server import Forge, Repository
from tests.publish.conftest import Ci

APP = """\
  {name}:   # kept by CI
    version: 1.0
    artifact: {{url: "file://{releases}/{name}-{{{{ version }}}}.tar", checksum: "sha256:{digest}"}}
    run: {{command: [bin/web]}}
"""


def state(releases: Path, *names: str) -> str:
    apps = "".join(APP.format(name=name, releases=releases, digest="a" * 64) for name in names or ("web",))
    return f"# ours\nschema: 1\n\napps:\n{apps}"


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(tmp_path / "forge") as forge:
        yield forge


@pytest.fixture
async def repository(forge: Forge, releases: Path) -> Repository:
    repository = await forge.repository("ops/state.git")
    await repository.put({"state.yaml": state(releases), "README": "ours"})
    return repository


def words(
    tree: Path, releases: Path, repository: Repository, version: str = "2.0", app: str = "web"
) -> list[Any]:
    return [tree, "--to", f"{releases}/", "--app", app, "--version", version, "--state", repository.url]


async def show(repository: Repository, what: str = "main:state.yaml") -> str:
    return await git("show", what, directory=repository.path)


async def test_a_release_is_one_commit_of_two_lines(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    before = await show(repository)
    told = await ci.told(*words(tree, releases, repository))
    assert await show(repository) == before.replace("version: 1.0", "version: 2.0").replace(
        "a" * 64, told["sha256"]
    )
    log = await git("log", "--format=%H|%an|%B", "-1", "main", directory=repository.path)
    assert log == (
        f"{told['state']['commit']}|emptybox publish|web 2.0\n\n{told['url']}\nsha256:{told['sha256']}"
    )
    assert await git("diff", "--stat=200", "--summary", "main~", "main", directory=repository.path) == (
        " state.yaml | 4 ++--\n 1 file changed, 2 insertions(+), 2 deletions(-)".strip()
    )
    again = await ci.told(*words(tree, releases, repository))
    assert again["state"] == {"commit": told["state"]["commit"], "branch": "main", "changes": []}
    people = await ci.publish(*words(tree, releases, repository, "3.0"), "-m", "Ship it")
    assert people.code == OK
    assert "state.yaml: apps.web.version: 2.0 -> 3.0" in people.err
    assert (await git("log", "--format=%s", "-1", "main", directory=repository.path)) == "Ship it"


async def test_who_pushes_at_the_same_time_is_not_lost(
    ci: Ci, tree: Path, releases: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pusher finds that somebody was faster, between its clone and its push."""
    monkeypatch.setattr(publishing, "_PAUSE", 0.001)
    await repository.put({"state.yaml": state(releases, "web", "api")})
    real = publishing._Clone._push
    raced: list[str] = []

    def push(clone: Any, ref: str) -> str:
        if len(raced) < 3:
            raced.append(ref)
            text = asyncio.run(show(repository)).replace("# ours", f"# ours, {len(raced)}")
            asyncio.run(repository.put({"state.yaml": text + "\n"}))
        return real(clone, ref)

    monkeypatch.setattr(publishing._Clone, "_push", push)
    told = await ci.told(*words(tree, releases, repository, app="api"))
    assert len(raced) == 3
    after = await show(repository)
    assert "# ours, 3" in after
    assert after.count("version: 1.0") == after.count("version: 2.0") == 1
    assert told["sha256"] in after
    assert await git("rev-list", "--count", "main", directory=repository.path) == "6"


async def test_many_jobs_at_once_all_get_through(
    tree: Path, releases: Path, repository: Repository, tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    await repository.put({"state.yaml": state(releases, *names)})

    async def job(name: str) -> None:
        line = words(tree, releases, repository, app=name)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "agent", "publish",
            *map(str, line), stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()

    await asyncio.gather(*map(job, names))
    assert (await show(repository)).count("version: 2.0") == 3


async def test_a_server_that_refuses_is_quoted_and_not_asked_again(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    hook = repository.path / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'main is frozen, ask Ada' >&2\nexit 1\n")
    hook.chmod(0o755)
    answer = await ci.publish(*words(tree, releases, repository))
    assert answer.code == FAILED
    assert "main is frozen, ask Ada" in answer.err
    assert "version: 1.0" in await show(repository)


async def test_logins_come_from_a_file_and_are_never_shown(
    ci: Ci, tree: Path, releases: Path, repository: Repository, forge: Forge, tmp_path: Path
) -> None:
    forge.logins = {"ci": "a-secret-of-ci"}
    logins = tmp_path / "logins"
    line = [*words(tree, releases, repository), "--credentials-file", logins]
    logins.write_text("ci:a-wrong-secret\n")
    denied = await ci.publish(*line)
    assert denied.code == FAILED
    assert "a-wrong-secret" not in denied.err
    assert "name a login" in denied.err
    logins.write_text(
        repository.url.replace("http://", "http://ci:a-secret-of-ci@").replace("ops/state.git", "ops")
    )
    assert (await ci.publish(*line)).code == OK
    line[line.index(repository.url)] = repository.url.replace("http://", "http://ci:a-secret-of-ci@")
    refused = await ci.publish(*line)
    assert refused.code == FAILED
    assert "a-secret-of-ci" not in refused.err + refused.out
    assert "--credentials-file" in refused.err


async def test_a_forge_that_is_away_is_told_apart(
    ci: Ci, tree: Path, releases: Path, repository: Repository, forge: Forge
) -> None:
    await forge.stop()
    answer = await ci.publish(*words(tree, releases, repository))
    assert answer.code == NOT_NOW
    assert "git clone" in answer.err


async def test_a_branch_a_path_and_a_repository_by_path(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    await repository.git("checkout", "-q", "-b", "staging")
    await repository.put({"state.yaml": None, "deploy/prod.yaml": state(releases)})
    line = words(tree, releases, repository)
    line[line.index(repository.url)] = str(repository.path)
    told = await ci.told(*line, "--branch", "staging", "--path", "deploy/prod.yaml")
    assert told["state"]["branch"] == "staging"
    assert told["state"]["changes"][0]["file"] == "deploy/prod.yaml"
    assert "version: 2.0" in await show(repository, "staging:deploy/prod.yaml")
    assert "version: 1.0" in await show(repository)
    missing = await ci.publish(*line, "--branch", "nowhere")
    assert missing.code == FAILED
    assert "nowhere" in missing.err


async def test_agents_may_fetch_it_from_elsewhere(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    await ci.told(*words(tree, releases, repository), "--url", "https://cdn.example/web.tar")
    assert 'url: "https://cdn.example/web.tar"' in await show(repository)


async def test_a_state_that_cannot_be_edited_is_left_alone(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    await repository.put({"state.yaml": state(releases).replace("1.0\n", "|-\n      1.0\n")})
    commit = await git("rev-parse", "main", directory=repository.path)
    answer = await ci.publish(*words(tree, releases, repository))
    assert answer.code == FAILED
    assert re.search(r"state.yaml:6: apps.web.version spans lines", answer.err)
    assert await git("rev-parse", "main", directory=repository.path) == commit
    assert not releases.exists()  # nothing was sent either


async def test_without_the_git_program_it_is_asked_for(
    ci: Ci, tree: Path, releases: Path, repository: Repository
) -> None:
    answer = await ci.publish(*words(tree, releases, repository), env={"PATH": str(tree)})
    assert answer.code == FAILED
    assert "the git program is missing" in answer.err


async def test_the_state_needs_an_app_and_a_version(ci: Ci, tree: Path, releases: Path) -> None:
    answer = await ci.publish(tree, "--to", releases, "--state", "https://git.example/state.git")
    assert answer.code == USAGE
    assert not releases.exists()
