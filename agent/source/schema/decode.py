"""From nodes to raw types: strict, and all mistakes at once.

msgspec's own decoder stops at the first mistake and tells no places, so its description of the types
(`msgspec.inspect`) is walked here together with the nodes. A value with a mistake is left out, the
mistake is noted at the place of the value, or of its key when the key is the mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingType
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from agent.source.nodes import Entry, Mapping, Node, Null, Scalar, Sequence, kind, plain
from agent.source.problems import Path, Problems, nearest, shown
from agent.source.schema.scalars import PARSERS

T = TypeVar("T", bound=msgspec.Struct)
Fields = MappingType[str, inspect.Field]


class _Lost:
    """The value of what cannot be decoded."""


LOST: Final = _Lost()
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_EMPTY = 'is empty; leave the key out, or write "" for an empty text'


def decode(node: Node, cls: type[T], path: Path, problems: Problems) -> T | None:
    """The raw value of type `cls` that `node` holds; None when nothing is left of it."""
    value = _Decoder(problems).value(node, _info(cls), path)
    return None if value is LOST else value


@cache
def _info(cls: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(cls)


@cache
def _fields(cls: type[msgspec.Struct]) -> Fields:
    info = _info(cls)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: field for field in info.fields}


class _Decoder:
    """One walk. Each method answers a value or LOST."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def value(self, node: Node, wanted: inspect.Type, path: Path) -> Any:
        hint = ""
        if isinstance(wanted, inspect.Metadata):
            hint = (wanted.extra or {}).get("hint", "")
            wanted = wanted.type
        if isinstance(node, Null):
            return self._wrong(node, path, _EMPTY)
        if isinstance(wanted, inspect.UnionType):
            found = _member(node, wanted)
            return self._unfit(node, wanted, path) if found is None else self.value(node, found, path)
        if isinstance(wanted, inspect.AnyType):
            return self._anything(node, path)
        if isinstance(node, Mapping):
            if isinstance(wanted, inspect.StructType):
                return self._struct(node, wanted.cls, path)
            if isinstance(wanted, inspect.DictType):
                return self._dict(node, wanted.value_type, path)
        elif isinstance(node, Sequence):
            if isinstance(wanted, inspect.ListType):
                return self._list(node, wanted.item_type, path)
        elif not _is_container(wanted):
            return self._scalar(node, wanted, path)
        return self._unfit(node, wanted, path, hint)

    def _struct(self, node: Mapping, cls: type[msgspec.Struct], path: Path) -> Any:
        fields = _fields(cls)
        values = {}
        for key, entry in node.entries.items():
            here = (*path, key)
            field = fields.get(key)
            if field is None:
                self._unknown(entry, here, fields)
            elif _not_yet(field):
                self._problems.add(entry.mark, here, "not yet supported")
            else:
                value = self.value(entry.node, field.type, here)
                if value is not LOST:
                    values[field.name] = value
        return cls(**values)

    def _unknown(self, entry: Entry, path: Path, fields: Fields) -> None:
        key = str(path[-1])
        hint = "" if self._problems.full else nearest(key, fields)
        if hint:
            self._problems.mute((*path[:-1], hint.removeprefix(", did you mean ").removesuffix("?")))
        known = "" if hint else f", known are {', '.join(fields)}"
        self._problems.add(entry.mark, path, f"unknown key{hint or known}")

    def _dict(self, node: Mapping, wanted: inspect.Type, path: Path) -> dict[str, Any]:
        found = {key: self.value(entry.node, wanted, (*path, key)) for key, entry in node.entries.items()}
        return {key: value for key, value in found.items() if value is not LOST}

    def _list(self, node: Sequence, wanted: inspect.Type, path: Path) -> list[Any]:
        found = []
        for index, item in enumerate(node.items):
            value = self.value(item, wanted, (*path, index))
            if value is LOST:  # keeps its place, so that the paths of those after it stay right
                value = wanted.cls() if isinstance(wanted, inspect.StructType) else ""
            found.append(value)
        return found

    def _anything(self, node: Node, path: Path) -> Any:
        """vars: texts, lists and mappings as they are; nothing is a mistake at every depth."""
        pending: list[tuple[Node, Path]] = [(node, path)]
        seen: set[int] = set()
        while pending:
            inner, here = pending.pop()
            if isinstance(inner, Null):
                self._wrong(inner, here, _EMPTY)
            elif not isinstance(inner, Scalar) and id(inner) not in seen:
                seen.add(id(inner))
                if isinstance(inner, Mapping):
                    pending += [(entry.node, (*here, key)) for key, entry in inner.entries.items()]
                else:
                    pending += [(item, (*here, index)) for index, item in enumerate(inner.items)]
        return plain(node)

    def _scalar(self, node: Scalar, wanted: inspect.Type, path: Path) -> Any:
        text = node.text
        match wanted:
            case inspect.StrType():
                return text
            case inspect.IntType():
                number = int(text) if _WHOLE.fullmatch(text) else None
                if number is None or not _within(number, wanted):
                    return self._wrong(node, path, f"expected {_word(wanted)}, found {shown(text)!r}")
                return number
            case inspect.FloatType():
                try:
                    return float(text)
                except ValueError:
                    return self._wrong(node, path, f"expected a number, found {shown(text)!r}")
            case inspect.BoolType():
                if text not in ("true", "false"):
                    return self._wrong(node, path, f"expected true or false, found {shown(text)!r}")
                return text == "true"
            case inspect.LiteralType() | inspect.EnumType():
                return self._choice(node, wanted, path)
            case inspect.CustomType():
                try:
                    return PARSERS[wanted.cls](text)
                except ValueError as error:
                    return self._wrong(node, path, str(error))
        raise TypeError(f"the schema uses {type(wanted).__name__}, which nothing decodes")

    def _choice(self, node: Scalar, wanted: inspect.LiteralType | inspect.EnumType, path: Path) -> Any:
        if isinstance(wanted, inspect.EnumType):
            choices: dict[str, Any] = {str(member.value): member for member in wanted.cls}
        else:
            choices = {str(value): value for value in wanted.values}
        if node.text in choices:
            return choices[node.text]
        near = nearest(node.text, choices)
        return self._wrong(node, path, f"expected {_word(wanted)}, found {shown(node.text)!r}{near}")

    def _unfit(self, node: Node, wanted: inspect.Type, path: Path, hint: str = "") -> _Lost:
        message = f"expected {_word(wanted)}, found {kind(node)}"
        return self._wrong(node, path, f"{message}; {hint}" if hint else message)

    def _wrong(self, node: Node, path: Path, message: str) -> _Lost:
        self._problems.add(node.mark, path, message)
        return LOST


def _not_yet(field: inspect.Field) -> bool:
    return isinstance(field.type, inspect.Metadata) and bool((field.type.extra or {}).get("not_yet"))


def _within(number: int, wanted: inspect.IntType) -> bool:
    return (wanted.ge is None or number >= wanted.ge) and (wanted.le is None or number <= wanted.le)


def _bare(wanted: inspect.Type) -> inspect.Type:
    return wanted.type if isinstance(wanted, inspect.Metadata) else wanted


def _is_container(wanted: inspect.Type) -> bool:
    return isinstance(wanted, inspect.StructType | inspect.DictType | inspect.ListType)


def _fits(node: Node, wanted: inspect.Type) -> bool:
    if isinstance(node, Mapping):
        return isinstance(wanted, inspect.StructType | inspect.DictType)
    if isinstance(node, Sequence):
        return isinstance(wanted, inspect.ListType)
    return not _is_container(wanted)


def _members(union: inspect.UnionType) -> list[inspect.Type]:
    return [member for member in union.types if not isinstance(member, inspect.NoneType)]


def _member(node: Node, union: inspect.UnionType) -> inspect.Type | None:
    """The member of a union that a node's kind names; a union's members differ in kind."""
    members = _members(union)
    if len(members) == 1:
        return members[0]
    return next((member for member in members if _fits(node, _bare(member))), None)


def _word(wanted: inspect.Type) -> str:
    """The word for people."""
    wanted = _bare(wanted)
    match wanted:
        case inspect.UnionType():
            return " or ".join(_word(member) for member in _members(wanted))
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case inspect.ListType():
            return "a list"
        case inspect.IntType(ge=low, le=high) if low is not None and high is not None:
            return f"a whole number from {low} to {high}"
        case inspect.IntType():
            return "a whole number"
        case inspect.EnumType():
            return f"one of {', '.join(str(member.value) for member in wanted.cls)}"
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, wanted.values))}"
    return "a text"
