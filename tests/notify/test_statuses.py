"""Commit statuses against real HTTP servers that hold requests to each forge's documented shape.

No forge itself is to be had here: what these tests cannot see is a forge that departs from its documentation.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from agent.config import Settings
from agent.domain import events as facts
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.model import SyncResult
from agent.kit.mask import secrets
from agent.notify.channels import status_channel
from tests.kit.api_server import SHAPES, ApiServer, api_server
from tests.kit.ports import free_port
from tests.notify.parts import CHECKSUM, PROBE, TOKEN, A, B, Stand, stand, token_file

WORDS = {
    "github": ("pending", "success", "failure", "error"),
    "gitea": ("pending", "success", "failure", "error"),
    "forgejo": ("pending", "success", "failure", "error"),
    "gitlab": ("running", "success", "failed", "canceled"),
    "bitbucket-cloud": ("INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"),
    "bitbucket-server": ("INPROGRESS", "SUCCESSFUL", "FAILED", "FAILED"),
}
APIS = {"github": "", "bitbucket-cloud": "/2.0", "gitlab": "/api/v4", "bitbucket-server": ""}


def told_to(server: ApiServer, tmp_path: Path, forge: str) -> dict[str, Any]:
    return {
        "repo": f"{server.url}/acme/state.git",
        "status_token_file": token_file(tmp_path),
        "status_forge": forge,
        "status_api": server.url + APIS.get(forge, "/api/v1"),
        "public_url": "https://box.example/",
    }


async def until_sent(world: Stand) -> None:
    async with asyncio.timeout(30):
        while world.journal.outbox.waiting():
            await world.journal.outbox.changed(1.0)


@pytest.mark.parametrize("forge", WORDS)
async def test_a_commits_way_is_told_in_the_documented_shape_of_a_forge_that_is_not_here(
    forge: str, tmp_path: Path
) -> None:
    pending, success, failure, cancelled = WORDS[forge]
    async with (
        api_server(SHAPES[forge]) as server,
        stand(tmp_path, **told_to(server, tmp_path, forge)) as world,
    ):
        world.begin("s1", A, "1.4.0")
        await until_sent(world)
        world.succeed("s1", A, "1.4.0")
        await until_sent(world)
        world.begin("s2", B, "1.5.0")
        await until_sent(world)
        world.roll_back("s2", B, PROBE, to="1.4.0")
        await until_sent(world)
        world.play(facts.SyncFinished("s3", SyncResult.SUPERSEDED, "c" * 40))
        await until_sent(world)
        assert world.conditions == []
    told = [(got.content["state"], got.content["description"]) for got in server.got]
    assert told[0] == (pending, "web: version -> 1.4.0")
    assert (success, "web 1.4.0 serves") in told
    assert (failure, "web: rolled back to 1.4.0: ProbeFailed: HTTP 500") in told
    assert told[-1] == (cancelled, "superseded by a newer commit")
    names = {got.content.get("context") or got.content["name"] for got in server.got}
    assert names == {"emptybox/env=prod,region=eu"}
    links = {got.content.get("target_url") or got.content.get("url") for got in server.got}
    assert links == {"https://box.example/"}


async def test_a_failure_names_its_step_and_reason(tmp_path: Path) -> None:
    async with api_server(SHAPES["github"]) as server:
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            world.begin("s1", A, "1.4.0")
            world.fail("s1", A, CHECKSUM, "verify")
            await until_sent(world)
    assert server.got[-1].content["state"] == "failure"
    assert server.got[-1].content["description"] == "web: verify: ChecksumMismatch: the bytes differ"


async def test_a_state_that_cannot_be_read_is_a_failure_of_its_commit_told_once(tmp_path: Path) -> None:
    invalid = FailureInfo(FailureKind.PERMANENT, "StateInvalid", "state.yaml:3:1 vras: unknown key\n" * 20)
    async with api_server(SHAPES["github"]) as server:
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            for sync in ("s1", "s2", "s3"):
                world.play(facts.SyncFinished(sync, SyncResult.FAILED, A, invalid))
                await until_sent(world)
    assert [got.content["state"] for got in server.got] == ["failure"]
    assert len(server.got[0].content["description"]) == 140


async def test_what_was_told_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    async with api_server(SHAPES["github"]) as server:
        for _ in range(2):
            async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
                world.play(facts.SyncResolved("s1", A), facts.SyncFinished("s1", SyncResult.UNCHANGED, A))
                await until_sent(world)
    assert [got.content["state"] for got in server.got] == ["success"]


async def test_a_forge_that_is_down_is_tried_again_and_gets_the_last_word(tmp_path: Path) -> None:
    port = free_port()
    async with api_server(SHAPES["github"], port) as server:
        wanted = told_to(server, tmp_path, "github")
    async with stand(tmp_path, **wanted) as world:  # the server is gone
        world.begin("s1", A, "1.4.0")
        async with asyncio.timeout(30):
            while not world.conditions:
                await asyncio.sleep(0.01)
        assert world.conditions[0][0] == "False"
        assert "commit-status" in world.conditions[0][1]
        async with api_server(SHAPES["github"], port) as server:
            world.succeed("s1", A, "1.4.0")
            await until_sent(world)
            assert server.got[-1].content["state"] == "success"
        assert world.conditions[-1] == ("True", "")


async def test_what_could_not_be_told_is_told_by_the_next_life_of_the_agent(tmp_path: Path) -> None:
    port = free_port()
    async with api_server(SHAPES["github"], port) as server:
        wanted = told_to(server, tmp_path, "github")
    async with stand(tmp_path, first_rest=3600.0, **wanted) as world:
        world.begin("s1", A, "1.4.0")
        world.fail("s1", A, CHECKSUM, "verify")
    async with api_server(SHAPES["github"], port) as server, stand(tmp_path, **wanted) as world:
        await until_sent(world)
        assert [got.content["state"] for got in server.got] == ["failure"]


async def test_a_failure_is_never_dropped_in_favour_of_a_success(tmp_path: Path) -> None:
    async with api_server(SHAPES["github"]) as server:
        server.answers = [(503, {}, "")] * 3
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            world.begin("s1", A, "1.4.0")
            world.fail("s1", A, CHECKSUM, "verify")
            world.begin("s2", A, "1.4.0")
            world.succeed("s2", A, "1.4.0")
            await until_sent(world)
    delivered = [got.content["state"] for got in server.got[3:]]
    assert delivered == ["failure", "success"]  # and nothing of what was pending in between


async def test_a_commit_the_forge_does_not_know_holds_up_no_other(tmp_path: Path) -> None:
    def shape(got: object) -> str:
        return "No commit found" if A in getattr(got, "path", "") else ""

    async with api_server(shape) as server:
        async with stand(tmp_path, first_rest=3600.0, **told_to(server, tmp_path, "github")) as world:
            world.begin("s1", A, "1.4.0")
            world.begin("s2", B, "1.5.0")
            await server.requests(2)
    assert any(B in got.path for got in server.got)


async def test_retry_after_is_heard(tmp_path: Path) -> None:
    async with api_server(SHAPES["github"]) as server:
        server.answers = [(429, {"Retry-After": "1"}, "slow down")]
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            world.begin("s1", A, "1.4.0")
            await server.requests(2)
            assert loop.time() - began >= 1.0


async def test_gitlabs_refusal_to_repeat_a_state_is_a_delivery(tmp_path: Path) -> None:
    async with api_server(SHAPES["gitlab"]) as server:
        text = '{"message":{"state":["Cannot transition status via :run from :running"]}}'
        server.answers = [(400, {}, text)]
        async with stand(tmp_path, **told_to(server, tmp_path, "gitlab")) as world:
            world.begin("s1", A, "1.4.0")
            await until_sent(world)
            assert world.conditions == []


async def test_a_redirect_is_not_followed_with_the_token(tmp_path: Path) -> None:
    async with api_server() as other, api_server() as server:
        server.answers = [(302, {"Location": f"{other.url}/steal"}, "")]
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            world.begin("s1", A, "1.4.0")
            await until_sent(world)
        assert not other.got


async def test_the_token_is_read_anew_each_time_and_never_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with api_server(SHAPES["github"]) as server:
        async with stand(tmp_path, **told_to(server, tmp_path, "github")) as world:
            world.begin("s1", A, f"1.4.0-{TOKEN}")
            await until_sent(world)
            token_file(tmp_path, "another-token")
            world.succeed("s1", A, f"1.4.0-{TOKEN}")
            await until_sent(world)
            server.answers = [(401, {}, f"bad token {TOKEN}")]
            world.play(facts.SyncFinished("s9", SyncResult.SUPERSEDED, B))
            await until_sent(world)
            told = caplog.text + str(world.conditions) + "".join(map(str, world.told[-3:]))
    assert [got.headers["authorization"] for got in (server.got[0], server.got[-1])] == [
        f"Bearer {TOKEN}",
        "Bearer another-token",
    ]
    assert TOKEN not in told
    assert "another-token" not in told
    assert TOKEN not in str([got.content for got in server.got[1:]])
    assert secrets.text(TOKEN) == "***"


async def test_an_unreadable_token_file_is_said_and_mended_without_a_restart(tmp_path: Path) -> None:
    async with api_server(SHAPES["github"]) as server:
        wanted = told_to(server, tmp_path, "github")
        (tmp_path / "token").unlink()
        async with stand(tmp_path, **wanted) as world:
            world.begin("s1", A, "1.4.0")
            async with asyncio.timeout(30):
                while not world.conditions:
                    await asyncio.sleep(0.01)
            assert "cannot be read" in world.conditions[0][1]
            token_file(tmp_path)
            await until_sent(world)
        assert server.got


@pytest.mark.parametrize(
    ("repo", "forge", "api", "path"),
    [
        ("https://github.com/acme/state.git", "", "https://api.github.com", "acme/state"),
        ("https://gitlab.com/acme/ops/state", "", "https://gitlab.com/api/v4", "acme/ops/state"),
        ("https://bitbucket.org/acme/state.git", "", "https://api.bitbucket.org/2.0", "acme/state"),
        ("https://codeberg.org/acme/state.git", "", "https://codeberg.org/api/v1", "acme/state"),
        (
            "https://git.example.com:3000/acme/state",
            "gitea",
            "https://git.example.com:3000/api/v1",
            "acme/state",
        ),
        (
            "ssh://git@git.example.com:22/acme/state.git",
            "gitlab",
            "https://git.example.com/api/v4",
            "acme/state",
        ),
        (
            "https://bb.example.com/scm/acme/state.git",
            "bitbucket-server",
            "https://bb.example.com",
            "acme/state",
        ),
        ("https://ghe.example.com/acme/state.git", "github", "https://ghe.example.com/api/v3", "acme/state"),
    ],
)
def test_the_api_is_found_by_the_repositorys_url(
    repo: str, forge: str, api: str, path: str, tmp_path: Path
) -> None:
    found = status_channel(Settings(repo=repo, status_forge=forge, status_token_file=token_file(tmp_path)))
    assert found is not None
    assert (found.api, found.repository) == (api, path)
    assert found.link.startswith("https://")


def test_a_forge_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="name one of github, gitea"):
        status_channel(Settings(repo="https://git.example.com/a/b", status_token_file=token_file(tmp_path)))
