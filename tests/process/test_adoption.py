"""Whether programs can be adopted here, found out by the real keeper."""

from __future__ import annotations

import errno

import pytest

from agent.keeper.protocol import ChildRecord
from agent.process import adoption
from agent.process.adoption import Adoption, collision, not_bound
from tests.kit import sandbox
from tests.kit.keepers import Agent, keeper


async def test_here_programs_can_be_adopted_and_nothing_is_left_of_the_trial(agent: Agent) -> None:
    assert await Adoption(agent.client).obstacle() == ""
    assert agent.client.children == {} and agent.client.groups == {}
    assert agent.client.notes == {"adopt": "possible"}


async def test_what_was_found_out_is_the_next_agents_too(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.client.note("adopt", "a reason")
    monkeypatch.setattr(adoption, "_TRIAL", "raise SystemExit('not asked for')")
    assert await Adoption(agent.client).obstacle() == "a reason"


async def test_a_sandbox_that_refuses_is_the_obstacle() -> None:
    rule = f"{sandbox.seccomp_number()}={errno.EPERM}"
    async with keeper(wrapper=sandbox.refusing(rule)) as kept:
        client = (await kept.agent()).client
        found = await Adoption(client).obstacle()
        assert found == "the kernel or a sandbox refuses seccomp notifications: Operation not permitted"
        assert client.children == {} and client.groups == {}


async def test_a_trial_that_is_not_seen_to_bind_is_an_obstacle(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_TRIAL", "pass")
    assert "not seen to bind" in await Adoption(agent.client).obstacle()


def record(**values: object) -> ChildRecord:
    return ChildRecord("x", 1, 0.0, "", **values)  # type: ignore[arg-type]


PORTS = {"http": 8080, "admin": 8081}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"taken": ["http", "admin"], "others": [9090]}, ""),
        ({"taken": ["http"]}, "the program does not listen on its port 8081"),
        ({}, "the program does not listen on its ports 8080, 8081"),
        ({"taken": ["admin"], "others": [9090]}, "the program listens on 9090, not on its port 8080"),
        ({"others": [1, 2], "trouble": "Permission denied"}, "its ports 8080, 8081"),
    ],
)
def test_what_a_program_did_instead_is_said(told: dict[str, object], words: str) -> None:
    found = not_bound(record(**told), PORTS)
    assert found == words or (words and found.endswith(words) and "Permission denied" in found)


def test_a_private_port_that_both_versions_want_is_named() -> None:
    assert collision(record(others=[1, 2, 3]), [record(others=[3]), record(others=[2, 9])]) == (
        "it also binds port 2, 3, which the running version has"
    )
    assert collision(record(others=[1]), [record(others=[2])]) == ""
