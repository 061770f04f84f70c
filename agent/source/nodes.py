"""A document as read, before it means anything: texts, nothing, mappings and sequences with their places.

Every scalar is text: what it is converted to is the business of the field that takes it (YAML's own
guesses turn 1.10 into 1.1, 22:30 into 1350 and no into false). Values that an alias repeats are the
same object, so a document is a tree that may share branches; `weight` counts it spelled out, as it
was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from agent.source.problems import Mark, Path


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text."""

    mark: Mark
    text: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Null:
    """Nothing: a key without a value, `null` or `~`. In a merge it takes a key away (RFC 7396)."""

    mark: Mark
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A value under its key; `mark` is the key's place."""

    mark: Mark
    node: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys, all texts, in the file's order."""

    mark: Mark
    entries: dict[str, Entry]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in order."""

    mark: Mark
    items: list[Node]
    weight: int = 1


Node: TypeAlias = Scalar | Null | Mapping | Sequence


def kind(node: Node) -> str:
    """The word for people."""
    match node:
        case Scalar():
            return "a text"
        case Null():
            return "nothing"
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"


def plain(node: Node) -> Any:
    """Texts, lists and dictionaries without places; nothing is None. Shared branches stay shared."""
    known: dict[int, Any] = {}

    def convert(node: Node) -> Any:
        if isinstance(node, Scalar):
            return node.text
        if isinstance(node, Null):
            return None
        if id(node) not in known:
            if isinstance(node, Mapping):
                known[id(node)] = {key: convert(entry.node) for key, entry in node.entries.items()}
            else:
                known[id(node)] = [convert(item) for item in node.items]
        return known[id(node)]

    return convert(node)


def mark_at(root: Node, path: Path, *, key: bool = False) -> Mark:
    """The place of the value at `path` (with `key`: of its key), or of the nearest above that is there."""
    node, mark = root, root.mark
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node.entries:
            entry = node.entries[part]
            node, mark = entry.node, entry.mark
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            mark = node.mark
        else:
            return mark
    return mark if key else node.mark
