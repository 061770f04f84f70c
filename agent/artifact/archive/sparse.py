"""Sparse files of GNU tar (tar's manual, "Storing Sparse Files"): which parts of a file are in the archive.

Of the four ways to write the list, three are read: GNU's own (type S, in the header and in blocks behind
it), PAX 0.1 (one record) and PAX 1.0 (text before the content; what GNU tar and bsdtar write today).
Everything between the parts is a hole, made as one: nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from agent.artifact.archive.headers import Header, number
from agent.artifact.archive.refusal import broken, too_large, unsupported
from agent.artifact.limits import Limits

Extent = tuple[int, int]  # offset and length in bytes

IN_HEADER = slice(386, 482)  # four places for extents in the header of a GNU sparse file ...
IN_BLOCK = slice(0, 504)  # ... and 21 in each block behind it
MORE_IN_HEADER, MORE_IN_BLOCK = 482, 504  # one byte: whether a block follows
REAL_SIZE = slice(483, 495)
_ENTRY = 24  # two numbers of 12 bytes
_DIGITS = 18


def gnu_extents(field: bytes, name: bytes) -> list[Extent]:
    """The extents of a header or of a block behind it, up to the first place that is not used."""
    found = []
    for start in range(0, len(field), _ENTRY):
        if not field[start]:
            break
        found.append(
            (number(field[start : start + 12], name), number(field[start + 12 : start + _ENTRY], name))
        )
    return found


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Whether PAX records describe a sparse file."""
    return any(key.startswith(b"GNU.sparse.") for key in records)


def take_name_and_size(header: Header, records: Mapping[bytes, bytes]) -> int:
    """The whole size of a sparse file of PAX, whose real name is put into `header`. Raises Refused."""
    name = records.get(b"GNU.sparse.name")
    if name is not None:
        if not name or b"\0" in name:
            raise broken("the PAX record for GNU.sparse.name is malformed", header.name)
        header.name = name
    size = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size"))
    if size is None:
        raise broken("a sparse file without its size", header.name)
    return _decimal(size, header.name)


def listed(records: Mapping[bytes, bytes], header: Header) -> list[Extent] | None:
    """The extents that stand in the records; None when they stand before the content (PAX 1.0)."""
    version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    if version == (b"1", b"0"):
        return None
    text = records.get(b"GNU.sparse.map")
    if text is None or version not in ((None, None), (b"0", b"1")):
        hint = "pack with tar's --sparse-version=1.0, or without --sparse"
        raise unsupported("sparse files of this version are not supported", header.name, hint)
    numbers = [_decimal(part, header.name) for part in text.split(b",")] if text else []
    return _pairs(numbers, header.name)


def count(line: bytes, header: Header, limits: Limits) -> int:
    """How many extents a PAX 1.0 list announces. Raises Refused."""
    announced = _decimal(line, header.name)
    bound(announced, header, limits)
    return announced


def bound(extents: int, header: Header, limits: Limits) -> None:
    """Refuse a list that would take much memory."""
    if extents > limits.header // _ENTRY:
        raise too_large(f"a sparse file in more than {limits.header // _ENTRY} parts", header.name)


def parsed(lines: list[bytes], header: Header) -> list[Extent]:
    """The extents of a PAX 1.0 list, its lines without the first. Raises Refused."""
    return _pairs([_decimal(line, header.name) for line in lines], header.name)


def check(extents: list[Extent], stored: int, size: int, header: Header) -> None:
    """Refuse parts that overlap, lie outside of the file, or are not what the archive stores."""
    ends = [0, *(offset + length for offset, length in extents)]
    starts = [*(offset for offset, _ in extents), size]
    ordered = all(end <= start for end, start in zip(ends, starts, strict=True))
    if not ordered or any(later < earlier for earlier, later in pairwise(ends)):
        raise broken("the parts of a sparse file overlap or lie outside of it", header.name)
    if sum(length for _, length in extents) != stored:
        raise broken("the parts of a sparse file are not what is stored of it", header.name)


def _pairs(numbers: list[int], name: bytes) -> list[Extent]:
    if len(numbers) % 2:
        raise broken("the parts of a sparse file are malformed", name)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _decimal(digits: bytes, name: bytes) -> int:
    if not digits.isdigit() or len(digits) > _DIGITS:
        raise broken("a number of a sparse file is malformed", name)
    return int(digits)
