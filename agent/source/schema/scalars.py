"""The words of the schema: how a text becomes a duration, a size, a mode; and what is not yet supported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from agent.config import parse_duration

DURATION_MAX = 366 * 86400.0
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Raw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the raw types: every key optional, None when it is not written."""


class Duration(float):
    """Seconds, written with a unit: 500ms, 10s, 10m, 2h, 1d; or 0."""


def seconds(value: Duration | None, default: float) -> float:
    """The duration as a plain number, or the default when none is written."""
    return default if value is None else float(value)


class Size(int):
    """Bytes, written as a number or with K, M, G or T, which count in 1024."""


class Mode(int):
    """Permission bits, written in octal: 0640."""


def _duration(text: str) -> Duration:
    seconds = 0.0 if text == "0" else parse_duration(text[:40])
    if seconds > DURATION_MAX:
        raise ValueError(f"{text[:40]} is longer than a year")
    return Duration(seconds)


def _size(text: str) -> Size:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:i?B)?", text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a size; write bytes, 64K, 512M or 2G")
    return Size(int(match[1]) * _SIZE_UNITS[match[2]])


def _mode(text: str) -> Mode:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError(f"{text[:40]!r} is not a file mode; write it in octal like 0640")
    return Mode(int(text, 8))


PARSERS: Mapping[type, Callable[[str], Any]] = {Duration: _duration, Size: _size, Mode: _mode}
JSON_SCHEMAS: Mapping[type, dict[str, Any]] = {
    Duration: {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?\s*(ms|s|m|h|d)|0)$", "maximum": 0},
    Size: {"type": ["string", "integer"], "pattern": r"^[0-9]{1,15}([KMGT]?(i?B)?)$"},
    Mode: {"type": ["string", "integer"], "pattern": r"^0?[0-7]{3}$"},
}

T = TypeVar("T")

# A key whose feature has not landed: refused by its mark, whatever stands below it.
NotYet: TypeAlias = Annotated[
    T | None,
    msgspec.Meta(description="not yet supported", extra={"not_yet": True}, extra_json_schema={"not": {}}),
]

# A program and its arguments, never a shell's line.
Command: TypeAlias = Annotated[
    list[str],
    msgspec.Meta(
        description="a program and its arguments, each an item of the list",
        extra={"hint": "write each word as an item: [bin/app, --verbose]"},
    ),
]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]
