"""What came between two commits, by real Git histories."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.source.git import history, remote
from agent.source.git.client import ProtocolClient
from agent.source.git.history import Passage
from agent.source.git.remote import GitRemote
from tests.kit.git_server import Forge, Repository


async def passage(state: Repository, new: str, old: str, *, all_commits: bool = True) -> Passage:
    async with GitRemote(state.url) as remote:
        return await remote.since(new, old, all_commits=all_commits)


def ids(found: Passage) -> set[str]:
    return {oid for oid, _ in found.since}


async def test_the_commits_since_are_those_after_the_old_one(state: Repository) -> None:
    commits = [await state.put({"a": str(n)}) for n in range(30)]
    found = await passage(state, commits[29], commits[4])
    assert found.contained
    assert ids(found) == set(commits[5:])
    assert found.since[0][0] == commits[29]
    assert found.since[0][1].startswith(b"tree ")


async def test_only_commits_are_fetched_and_only_as_many_as_needed(
    state: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await state.git("config", "uploadpack.allowFilter", "true")
    await state.git("-C", str(state.path), "config", "uploadpack.allowFilter", "true")
    commits = [await state.put({"a": "x" * 100_000 + str(n)}) for n in range(12)]
    taken: list[tuple[int, int]] = []
    take = ProtocolClient.take

    async def counting(self: ProtocolClient, want: str, *, depth: int, trees: bool = True) -> object:
        pack = await take(self, want, depth=depth, trees=trees)
        taken.append((depth, len(pack)))
        return pack

    monkeypatch.setattr(ProtocolClient, "take", counting)
    assert (await passage(state, commits[11], commits[9], all_commits=False)).contained
    assert taken == [(8, 8)]


async def test_a_merge_brings_the_commits_of_its_branch(state: Repository) -> None:
    first = await state.put({"a": "1"})
    await state.git("checkout", "-q", "-b", "side")
    side = [await state.commit({"b": str(n)}) for n in range(3)]
    await state.git("checkout", "-q", "main")
    main = await state.commit({"a": "2"})
    await state.git("merge", "-q", "--no-ff", "-m", "both", "side")
    merge = await state.put()
    assert ids(await passage(state, merge, main)) >= {merge, *side}
    assert first not in ids(await passage(state, merge, main))
    assert main not in ids(await passage(state, merge, main))


async def test_a_history_that_was_rewritten_or_gone_back_does_not_contain_the_old_one(
    state: Repository,
) -> None:
    first = await state.put({"a": "1"})
    second = await state.put({"a": "2"})
    await state.git("reset", "-q", "--hard", first)
    other = await state.put({"a": "3"})
    assert not (await passage(state, other, second)).contained
    assert not (await passage(state, first, second)).contained
    assert not (await passage(state, other, "f" * 40)).contained


async def test_clocks_that_went_wrong_do_not_hide_a_commit(state: Repository) -> None:
    first = await state.put({"a": "1"})
    state._time -= 1_000_000
    second = await state.put({"a": "2"})
    state._time += 5_000_000
    third = await state.put({"a": "3"})
    state._time -= 4_000_000
    fourth = await state.put({"a": "4"})
    assert ids(await passage(state, fourth, first)) == {second, third, fourth}
    assert ids(await passage(state, fourth, third)) == {fourth}
    assert not (await passage(state, second, third)).contained


async def test_a_repository_on_this_machine_is_walked_in_place(state: Repository) -> None:
    commits = [await state.put({"a": str(n)}) for n in range(10)]
    async with GitRemote(f"file://{state.path}") as remote:
        found = await remote.since(commits[9], commits[2], all_commits=True)
    assert ids(found) == set(commits[3:])


async def test_too_long_a_history_is_given_up_with_the_way_out(
    state: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = [await state.put({"a": str(n)}) for n in range(12)]
    monkeypatch.setattr(remote, "LAST_DEPTH", 8)
    with pytest.raises(OperatorNeeded, match="--accept-history"):
        await passage(state, commits[11], commits[0])
    monkeypatch.setattr(history, "COMMITS_MAX", 2)
    with pytest.raises(OperatorNeeded) as caught:
        await passage(state, commits[11], commits[9])
    assert caught.value.reason == "HistoryTooLong"


async def test_a_history_in_sha256_is_walked(forge: Forge, tmp_path: Path) -> None:
    state = await forge.repository("sha256.git", object_format="sha256")
    commits = [await state.put({"a": str(n)}) for n in range(10)]
    assert ids(await passage(state, commits[9], commits[0])) == set(commits[1:])
