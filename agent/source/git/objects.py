"""Commits, tags and trees from their bytes, gitformat-*(5); trees are parsed by dulwich, all is judged here.

dulwich is loaded when it is first needed, which is in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.domain.errors import Permanent
from agent.kit.text import printable
from agent.source.git.pktline import Garbled
from agent.source.git.protocol import ID_DIGITS, is_object_id
from agent.source.git.transport import Objects

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
PEEL_MAX = 8
MESSAGE_MAX = 1 << 20  # bytes of a commit or tag
TREE_MAX = 16 << 20  # bytes of one directory's list; what is parsed takes ten times as much
_TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a commit says about itself.

    `author` is the name without the address, `time` the committer's, in seconds since the epoch (what
    a rebase or merge made of it); `subject` the first line of the message. Texts are printable, one
    line, at most 200 characters.
    """

    tree: str
    parents: tuple[str, ...]
    author: str
    time: int
    subject: str


def peel(objects: Objects, oid: str) -> str:
    """The commit behind annotated tags. Raises KeyError, Garbled, Permanent("NotACommit")."""
    first = oid
    for _ in range(PEEL_MAX):
        kind, content = objects.get(oid)
        if kind == COMMIT:
            return oid
        if kind != TAG:
            break
        headers, _message = _split(content)
        oid = _id(_one(headers, "object"), objects)
    raise Permanent(
        "NotACommit", f"{first} is not a commit", remedy="follow a branch, or a tag of a commit (--ref)"
    )


def read_commit(objects: Objects, oid: str) -> CommitInfo:
    """A commit's content. Raises KeyError, Garbled."""
    kind, content = objects.get(oid)
    if kind != COMMIT:
        raise Garbled(f"{oid} is not a commit")
    headers, message = _split(content)
    author, _, _ = _one(headers, "author", "").partition("<")
    return CommitInfo(
        tree=_id(_one(headers, "tree"), objects),
        parents=tuple(_id(value, objects) for key, value in headers if key == "parent"),
        author=printable(author, _TEXT_MAX),
        time=_time(_one(headers, "committer", "")),
        subject=printable(message.lstrip("\n").partition("\n")[0], _TEXT_MAX),
    )


def read_tree(objects: Objects, oid: str) -> Iterator[tuple[bytes, int, str]]:
    """Name, mode and id of each entry. Raises KeyError, Garbled; names are not judged."""
    from dulwich.errors import ObjectFormatException
    from dulwich.objects import parse_tree

    kind, content = objects.get(oid)
    if kind != TREE:
        raise Garbled(f"{oid} is not a tree")
    if len(content) > TREE_MAX:
        raise Garbled(f"the tree {oid} exceeds {TREE_MAX} bytes")
    try:
        entries = list(parse_tree(content, ID_DIGITS[objects.object_format] // 2))
    except (ObjectFormatException, ValueError) as error:
        raise Garbled(f"the tree {oid} is not well-formed") from error
    return ((name, mode, sha.decode("ascii")) for name, mode, sha in entries)


def _split(content: bytes) -> tuple[list[tuple[str, str]], str]:
    """Headers in order, without the lines that continue one (signatures), and the message."""
    if len(content) > MESSAGE_MAX:
        raise Garbled(f"a commit or tag exceeds {MESSAGE_MAX} bytes")
    head, _, message = content.partition(b"\n\n")
    headers = []
    for line in head.decode("utf-8", "replace").split("\n"):
        if not line.startswith(" "):
            key, _, value = line.partition(" ")
            headers.append((key, value))
    return headers, message[: 16 * _TEXT_MAX].decode("utf-8", "replace")


def _one(headers: list[tuple[str, str]], key: str, default: str | None = None) -> str:
    for name, value in headers:
        if name == key:
            return value
    if default is None:
        raise Garbled(f"a commit or tag lacks its {key}")
    return default


def _id(text: str, objects: Objects) -> str:
    if not is_object_id(text) or len(text) != ID_DIGITS[objects.object_format]:
        raise Garbled("a commit or tag holds something that is not an object id")
    return text


def _time(person: str) -> int:
    """The seconds in `Name <address> seconds zone`; 0 when they are not there."""
    words = person.rpartition(">")[2].split()
    return int(words[0]) if words and words[0].isascii() and words[0].isdigit() and len(words[0]) < 16 else 0
