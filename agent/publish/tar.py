"""Headers of the archives we write: ustar, with PAX records for what does not fit (POSIX.1-2017, pax).

Our own, and not the standard library's, because these bytes must be the same for ever: what `tarfile` writes
has changed between versions of Python. Owners are 0 and nameless; modes are 0755 and 0644, which is all that
our unpacker takes over.
"""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

_NAME = 100  # bytes of the fields for names
_SIZE_MAX = 0o77777777777
_PAX_NAME = b"././@PaxHeader"
DIRECTORY, FILE, SYMLINK = b"5", b"0", b"2"
_PAX = b"x"


def header(name: bytes, kind: bytes, *, size: int = 0, mode: int, time: int, link: bytes = b"") -> bytes:
    """All blocks that stand before an entry's content.

    Args:
        name: path from the archive's root, without a slash at either end.
        kind: DIRECTORY, FILE or SYMLINK.
        size: of the content, in bytes.
        mode: permissions.
        time: of modification, in seconds since 1970.
        link: what a SYMLINK says.
    """
    path = name + b"/" if kind == DIRECTORY else name
    records = {key: value for key, value in ((b"path", path), (b"linkpath", link)) if _needs_record(value)}
    if any(not _is_utf8(value) for value in records.values()):
        records = {b"hdrcharset": b"BINARY", **records}
    if size > _SIZE_MAX:
        records[b"size"] = b"%d" % size
    before = b""
    if records:
        data = b"".join(_record(key, records[key]) for key in sorted(records))
        before = _block(_PAX_NAME, _PAX, len(data), 0o644, time, b"") + data + padding(len(data))
    return before + _block(path[:_NAME], kind, min(size, _SIZE_MAX), mode, time, link[:_NAME])


def padding(size: int) -> bytes:
    """What follows a content of `size` bytes."""
    return bytes(-size % BLOCK)


def _needs_record(text: bytes) -> bool:
    return len(text) > _NAME or not text.isascii()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    r"""`LENGTH KEY=VALUE\n`, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _block(name: bytes, kind: bytes, size: int, mode: int, time: int, link: bytes) -> bytes:
    fields = (
        name.ljust(_NAME, b"\0"),
        b"%07o\0%07o\0%07o\0" % (mode, 0, 0),  # mode, user, group
        b"%011o\0%011o\0" % (size, time),
        b" " * 8,  # the checksum counts as blanks
        kind,
        link.ljust(_NAME, b"\0"),
        b"ustar\x0000",
        bytes(64),  # names of user and group
        b"%07o\0%07o\0" % (0, 0),  # device
        bytes(167),
    )
    block = bytearray(b"".join(fields))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
