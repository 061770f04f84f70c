"""Tar headers: ustar and PAX (POSIX.1-2017, pax "Interchange Format"), GNU tar's own (tar(5)).

A header is a block of 512 bytes. What is malformed is refused, never guessed: two readers that guess
differently about one archive are how files are smuggled past a check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zlib import adler32

from agent.artifact.archive.refusal import broken, unsupported

BLOCK = 512
ZEROS = bytes(BLOCK)

_OCTAL = b"01234567"
_PAX_TIME = re.compile(rb"(-?)([0-9]{1,11})(?:\.([0-9]{1,20}))?\Z")
_MOST_TIME = 2**34  # seconds; what ext4 can hold


@dataclass(slots=True)
class Header:
    """One header as it stands, extensions applied. `mtime` in nanoseconds, `kind` the type flag's byte."""

    name: bytes
    kind: bytes
    size: int
    mode: int
    mtime: int
    link: bytes


def looks_like_tar(block: bytes) -> bool:
    """Whether a first block is a tar header: its checksum is right (also without the ustar magic)."""
    return len(block) == BLOCK and _checksum_fits(block)


def parse(block: bytes) -> Header:
    """One header block. Raises Refused."""
    name = _text(block[0:100])
    if not _checksum_fits(block):
        raise broken("the header's checksum is wrong: not a tar archive, or a damaged one", name)
    magic = block[257:265]
    if magic == b"ustar\x0000":
        prefix = _text(block[345:500])
        if prefix:
            name = prefix + b"/" + name
    mtime = 0 if block[136] == 0xFF else number(block[136:148], name)  # 0xFF: before 1970
    return Header(
        name,
        block[156:157],
        number(block[124:136], name),
        number(block[100:108], name),
        min(mtime, _MOST_TIME) * 1_000_000_000,
        _text(block[157:257]),
    )


def number(field: bytes, name: bytes) -> int:
    """A numeric field: octal digits, or GNU's base 256 for what is too large. Raises Refused."""
    digits = field.rstrip(b"\0 ")
    if digits.isdigit():  # as nearly all are
        try:
            return int(digits, 8)
        except ValueError:
            raise broken("a number in the header is malformed", name) from None
    padded = _digits(field)
    if padded is not None:
        return int(padded or b"0", 8)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40 or value >= 1 << 63:  # negative, or beyond any file
            raise broken("a number in the header is out of range", name)
        return value
    raise broken("a number in the header is malformed", name)


def _digits(field: bytes) -> bytes | None:
    """The octal digits of a field, b"" when it is blank, None when it holds anything else."""
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit():  # padded on the left as well, or with garbage behind the end
        digits = field.split(b"\0", 1)[0].strip(b" ")
    return digits if not digits.translate(None, _OCTAL) else None


def parse_pax(data: bytes, name: bytes) -> dict[bytes, bytes]:
    r"""The records `LENGTH KEY=VALUE\n` of an extended header. Raises Refused.

    A key given twice is refused where it matters: readers disagree about which one counts.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise broken("a PAX record's length is malformed", name)
        end = position + int(digits)
        key, equals, value = data[space + 1 : end].partition(b"=")
        if end <= space or end > len(data) or not equals or not key or not value.endswith(b"\n"):
            raise broken("a PAX record is malformed", name)
        if key in records and (key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse.")):
            raise broken(f"two PAX records for {key.decode()}", name)
        if key == b"SCHILY.realsize" or key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            hint = "pack with GNU tar's --sparse-version=1.0, or without --sparse"
            raise unsupported("sparse files of this version are not supported", name, hint)
        records[key] = value[:-1]
        position = end
    return records


def apply_pax(header: Header, records: dict[bytes, bytes]) -> None:
    """Let extended records override the header they precede. Raises Refused."""
    for key in (b"path", b"linkpath"):
        value = records.get(key)
        if value is None:
            continue
        if not value or b"\0" in value:
            raise broken(f"the PAX record for {key.decode()} is malformed", header.name)
        if key == b"path":
            header.name = value
        else:
            header.link = value
    size = records.get(b"size")
    if size is not None:
        if not size.isdigit() or len(size) > 18:
            raise broken("the PAX record for size is malformed", header.name)
        header.size = int(size)
    mtime = records.get(b"mtime")
    if mtime is not None:
        header.mtime = _pax_time(mtime, header.name)


def _pax_time(value: bytes, name: bytes) -> int:
    match = _PAX_TIME.match(value)
    if match is None:
        raise broken("the PAX record for mtime is malformed", name)
    if match[1]:
        return 0
    fraction = (match[3] or b"")[:9].ljust(9, b"0")
    return min(int(match[2]), _MOST_TIME) * 1_000_000_000 + int(fraction)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _sum(block: bytes) -> int:
    """Of all bytes of a block: half of an Adler-32 (RFC 1950), exact for 256 bytes, and ten times faster."""
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _checksum_fits(block: bytes) -> bool:
    digits = _digits(block[148:156])
    if not digits:
        return False
    told = int(digits, 8)
    actual = _sum(block) - sum(block[148:156]) + 8 * 0x20
    if told == actual:
        return True
    # Some old writers summed signed bytes.
    return told == actual - 256 * sum(1 for i, b in enumerate(block) if b > 127 and not 148 <= i < 156)
