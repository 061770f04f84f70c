from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import Permanent
from agent.source.git.objects import peel, read_commit, read_tree
from agent.source.git.pktline import Garbled
from tests.kit.git_objects import BLOB, COMMIT, TAG, TREE, MemoryObjects

T, P = "a" * 40, "b" * 40


def commit_of(content: str | bytes) -> tuple[MemoryObjects, str]:
    objects = MemoryObjects()
    return objects, objects.add(COMMIT, content.encode() if isinstance(content, str) else content)


def test_a_signed_merge_is_read() -> None:
    info = read_commit(
        *commit_of(
            f"tree {T}\nparent {P}\nparent {T}\nauthor Ada <a@b> 5 +0000\ncommitter Cleo <c@d> 7 +0100\n"
            "gpgsig -----BEGIN\n tree forged\n parent forged\n -----END\n\nSubject\n\nBody"
        )
    )
    assert (info.tree, info.parents) == (T, (P, T))
    assert (info.author, info.time, info.subject) == ("Ada", 7, "Subject")


def test_words_of_a_commit_are_fit_for_a_terminal() -> None:
    info = read_commit(
        *commit_of(
            f"tree {T}\nauthor \x1b[2JAda\r <a@b> 5 +0000\ncommitter x\n\n".encode()
            + b"\x1b]0;owned\x07 \xff"
            + b"x" * 5000
        )
    )
    assert info.author == "[2JAda"
    assert info.time == 0
    assert info.subject.isprintable()
    assert len(info.subject) == 200


@pytest.mark.parametrize(
    "content", ["", "tree x\n\n", f"tree {T.upper()}\n\n", f"parent {P}\n\nx", f"tree {T}\nparent ../x\n\n"]
)
def test_commits_without_proper_ids_are_garbled(content: str) -> None:
    with pytest.raises(Garbled):
        read_commit(*commit_of(content))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_commit_a_tree_or_garbled(content: bytes) -> None:
    objects = MemoryObjects()
    try:
        read_commit(objects, objects.add(COMMIT, b"tree " + T.encode() + b"\n" + content))
    except Garbled:
        pass
    try:
        for name, mode, oid in read_tree(objects, objects.add(TREE, content)):
            assert (type(name), type(mode), len(oid)) == (bytes, int, 40)
    except Garbled:
        pass


def test_absurd_sizes_are_garbled() -> None:
    objects = MemoryObjects()
    with pytest.raises(Garbled, match="exceeds"):
        read_commit(objects, objects.add(COMMIT, b"x" * (2 << 20)))
    with pytest.raises(Garbled, match="exceeds"):
        read_tree(objects, objects.add(TREE, b"x" * (17 << 20)))


def test_a_chain_of_tags_is_followed_but_not_for_ever() -> None:
    objects, oid = commit_of(f"tree {T}\n\n")
    commit = oid
    for _ in range(7):
        oid = objects.add(TAG, f"object {oid}\ntype commit\ntag x\n\n".encode())
    assert peel(objects, oid) == commit
    for _ in range(3):
        oid = objects.add(TAG, f"object {oid}\ntype tag\ntag x\n\n".encode())
    for end in (oid, objects.add(BLOB, b"")):
        with pytest.raises(Permanent) as caught:
            peel(objects, end)
        assert caught.value.reason == "NotACommit"
