"""Which pushes concern us: generous with repositories, exact with refs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.source.following import Following, path_of
from webhook.event import PushEvent


def push(
    *repositories: str, ref: str = "refs/heads/main", default: str = "main", deleted: bool = False
) -> PushEvent:
    return PushEvent("github", "d", repositories, ref, "", None if deleted else "a" * 40, deleted, default)


@pytest.mark.parametrize(
    "name",
    [
        "acme/state",
        "https://git.example.com/acme/state",
        "https://git.example.com/acme/state.git",
        "https://git.example.com/acme/state.git/",
        "https://token:x-oauth@GIT.example.com:8443/Acme/State.git",
        "ssh://git@git.example.com:2222/acme/state.git",
        "git@git.example.com:acme/state.git",
        "git@[::1]:acme/state.git",
        "git.example.com:/acme/state.git",
        "http://gitea-http.forge.svc.cluster.local:3000/acme/state.git",
        "https://example.com/git/acme/state",
        "https://git.example.com/acme/st%61te",
    ],
)
def test_one_repository_by_its_many_names(name: str) -> None:
    assert Following("https://git.example.com/acme/state.git", "main").objection(push(name)) == ""
    assert Following(f"{name}", "main").objection(push("acme/state")) == ""


@pytest.mark.parametrize(
    "name",
    [
        "acme/other",
        "other/state",
        "https://git.example.com/acme/other",
        "state",
        "",
        "https://[broken/acme/state",
        "https://git.example.com",
        "/",
        "acme/state.git.git",
        "acme/state/issues",
    ],
)
def test_another_repository_is_ignored(name: str) -> None:
    objection = Following("https://git.example.com/acme/state.git", "main").objection(push(name))
    assert "is not followed" in objection


def test_one_fitting_name_of_several_is_enough() -> None:
    following = Following("https://internal/acme/state", "main")
    assert following.objection(push("else/where", "https://git.example.com/acme/state.git")) == ""


def test_a_push_without_any_name_is_ignored() -> None:
    assert "not followed" in Following("https://git.example.com/acme/state", "main").objection(push())


@pytest.mark.parametrize(
    "repo",
    [
        "file:///srv/git/state.git",
        "file:///srv/state",
        "http://127.0.0.1:3000/state.git",
        "http://localhost/x/y/state",
        "http://[::1]:80/a/state.git",
        "http://git.example.com/state.git",
    ],
)
def test_where_no_owner_is_known_the_last_segment_decides(repo: str) -> None:
    following = Following(repo, "main")
    assert following.objection(push("acme/state")) == ""
    assert "acme/other is not followed" in following.objection(push("acme/other"))


@pytest.mark.parametrize(
    ("setting", "ref", "follows"),
    [
        ("main", "refs/heads/main", True),
        ("main", "refs/heads/dev", False),
        ("main", "refs/heads/feature/main", False),
        ("main", "refs/heads/Main", False),
        ("feature/größe", "refs/heads/feature/größe", True),
        ("v1.4.0", "refs/tags/v1.4.0", True),
        ("refs/tags/v1.4.0", "refs/tags/v1.4.0", True),
        ("refs/tags/v1.4.0", "refs/heads/v1.4.0", False),
        ("refs/heads/main", "refs/heads/main", True),
        ("HEAD", "refs/heads/main", True),
        ("HEAD", "refs/heads/dev", False),
        ("HEAD", "refs/tags/main", False),
    ],
)
def test_only_the_followed_ref_counts(setting: str, ref: str, follows: bool) -> None:
    objection = Following("https://git.example.com/acme/state", setting).objection(
        push("acme/state", ref=ref)
    )
    assert objection == ("" if follows else f"{ref} is not followed; {setting} is")


def test_head_is_any_branch_where_the_forge_does_not_tell_the_default_one() -> None:
    following = Following("https://git.example.com/acme/state", "HEAD")
    assert following.objection(push("acme/state", ref="refs/heads/dev", default="")) == ""
    assert following.objection(push("acme/state", ref="refs/tags/v1", default=""))


@pytest.mark.parametrize("length", [40, 64])
def test_no_push_moves_a_followed_commit(length: int) -> None:
    objection = Following("https://git.example.com/acme/state", "c" * length).objection(push("acme/state"))
    assert objection == "the commit cccccccccccc is followed, which no push moves"


def test_a_deleted_branch_is_ignored() -> None:
    following = Following("https://git.example.com/acme/state", "main")
    assert following.objection(push("acme/state", deleted=True)) == "refs/heads/main was deleted"


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_any_text_gets_a_verdict(repo: str, name: str, ref: str) -> None:
    assert isinstance(Following(repo, ref).objection(push(name, ref=ref)), str)


@given(st.text("abc/.:@[]%-", max_size=40))
def test_a_repository_always_fits_its_own_name_if_it_has_one(name: str) -> None:
    if len(path_of(name)) >= 2:
        assert Following(name, "main").objection(push(name)) == ""
