"""Zip archives (PKWARE's APPNOTE.TXT 6.3), read from a file, because the list of entries stands at the end.

    archive ::= (local header, content, [descriptor])*   list of entries   [zip64 end, its locator]   end

The list decides; each local header has to agree with it, parts may not overlap, nothing may stand before the
first entry or between the list and its end, and there is exactly one end. Two readers that go by different
parts of an archive would otherwise see different files in it. Entries are stored or deflated; modes, links
and kinds are taken where Unix wrote them, else an entry is a plain file or a directory.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from agent.artifact.archive.headers import Header
from agent.artifact.archive.inflate import GZIP, OUTPUT, Deflate
from agent.artifact.archive.reader import Sink
from agent.artifact.archive.refusal import broken, harmful, too_large, unsupported
from agent.artifact.limits import Limits

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # an entry first, or no entry at all

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LISTED = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64, _UNIX_TIME, _UNIX_NAME = 0x0001, 0x5455, 0x7075
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_UNIX, _DARWIN = 3, 19
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIPTOR, _STRONG, _UTF8, _MASKED = 1, 1 << 3, 1 << 6, 1 << 11, 1 << 13
_INPUT = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the list. `packed` and `size` in bytes, `start` of the local header."""

    name: bytes
    host: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    start: int
    mtime: int


class ZipReader:
    """Hands the entries of the open file `fd` to `sink`. `check` is called between steps of bounded size."""

    def __init__(self, fd: int, sink: Sink, limits: Limits, check: Callable[[], None]) -> None:
        self._fd = fd
        self._sink = sink
        self._limits = limits
        self._check = check
        self._size = os.fstat(fd).st_size
        self._given = 0

    def read(self) -> None:
        """Unpack everything. Raises Refused, and what the sink and `check` raise."""
        count, start, size = self._end()
        if size > self._limits.directory:
            raise too_large(f"a list of entries of more than {self._limits.directory} bytes")
        taken: list[tuple[int, int]] = []
        seen = 0
        for entry in _entries(self._at(start, size)):
            self._check()
            seen += 1
            if seen > self._limits.entries:
                raise too_large(f"more than {self._limits.entries} entries", entry.name)
            self._bound(entry)
            content = self._content(entry, start)
            taken.append((entry.start, content + entry.packed))
            self._unpack(entry, content)
        if seen != count:
            raise broken(f"{count} entries are announced, {seen} are listed")
        taken.sort()
        if taken and taken[0][0]:
            raise broken("there is something before the first entry")
        if any(end > later for (_, end), (later, _) in pairwise(taken)):
            raise broken("entries overlap")

    def _bound(self, entry: _Entry) -> None:
        self._given += entry.size
        limits = self._limits
        if self._given > limits.ratio_from and self._given > self._size * limits.ratio:
            raise too_large(f"unpacks to more than {limits.ratio} times its size", entry.name)

    def _at(self, start: int, size: int) -> bytes:
        data = os.pread(self._fd, size, start) if 0 <= start <= self._size else b""
        if len(data) != size:
            raise broken("the zip data ends too early")
        return data

    def _end(self) -> tuple[int, int, int]:
        """How many entries are announced; where their list starts, and its length."""
        length = min(self._size, _END.size + _FULL16)
        tail = self._at(self._size - length, length)
        found = [at for at in _places(tail, b"PK\x05\x06") if _is_end(tail, at)]
        if len(found) != 1:
            raise broken("the zip data has no end" if not found else "the zip data has more than one end")
        _, disk, first, here, count, size, start, _ = _END.unpack_from(tail, found[0])
        end = self._size - length + found[0]
        before = self._at(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
        if before[:4] == b"PK\x06\x07":
            _, _, end64, _ = _LOCATOR.unpack(before)
            told = (here, count, size, start)
            here, count, size, start = self._end64(end64, end - _LOCATOR.size)
            if any(
                short not in (wide, full)
                for short, wide, full in zip(
                    told, (here, count, size, start), (_FULL16, _FULL16, _FULL32, _FULL32), strict=True
                )
            ):
                raise broken("the two ends of the zip data disagree")
            end = end64
        elif disk or first:
            raise unsupported("zip archives in several parts are not supported")
        if here != count or start + size != end:
            raise broken("the list of entries is not where it is said to be")
        return count, start, size

    def _end64(self, start: int, end: int) -> tuple[int, int, int, int]:
        data = self._at(start, _END64.size)
        magic, length, _, _, disk, first, here, count, size, offset = _END64.unpack(data)
        if magic != b"PK\x06\x06" or start + 12 + length != end or disk or first:
            raise broken("the zip64 end is malformed")
        return here, count, size, offset

    def _content(self, entry: _Entry, end: int) -> int:
        """Where the content begins, once the local header agrees with the list."""
        head = self._at(entry.start, _LOCAL.size)
        magic, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(head)
        name = self._at(entry.start + _LOCAL.size, names)
        content = int(entry.start + _LOCAL.size + names + extras)
        told = [(crc, entry.crc), (packed, entry.packed), (size, entry.size)]
        agrees = magic == b"PK\x03\x04" and name == entry.name and method == entry.method
        if flags & _DESCRIPTOR:
            agrees &= all(local in (0, wide, _FULL32) for local, wide in told)
        else:
            agrees &= crc == entry.crc
            agrees &= all(local == wide or local == _FULL32 <= wide for local, wide in told[1:])
        if not agrees or (flags ^ entry.flags) & _ENCRYPTED:
            raise broken("the entry's own header says something else than the list of entries", entry.name)
        if content + entry.packed > end:
            raise broken("an entry reaches into the list of entries", entry.name)
        return content

    def _unpack(self, entry: _Entry, content: int) -> None:
        header = _header(entry)
        if header.kind == b"5":
            if entry.size:
                raise broken("a directory has a content", entry.name)
            self._sink.directory(header)
        elif header.kind == b"2":
            if entry.size > self._limits.path:
                raise harmful("a link whose target is too long", entry.name)
            header.link = b"".join(self._pieces(entry, content))
            self._sink.symlink(header)
        else:
            self._sink.begin(header)
            for piece in self._pieces(entry, content):
                self._sink.write(piece)
            self._sink.end()

    def _pieces(self, entry: _Entry, start: int) -> Iterator[bytes]:
        """The entry's content, never more than announced; refused unless it is just that."""
        left, crc = entry.size, 0
        for piece in self._inflated(entry, start):
            self._check()
            left -= len(piece)
            if left < 0:
                raise broken("more content than announced", entry.name)
            crc = zlib.crc32(piece, crc)
            yield piece
        if left or crc != entry.crc:
            raise broken("the content is damaged", entry.name)

    def _inflated(self, entry: _Entry, start: int) -> Iterator[bytes]:
        end = start + entry.packed
        raw = (self._at(at, min(_INPUT, end - at)) for at in range(start, end, _INPUT))
        if entry.method == _STORED:
            yield from raw
            return
        inflater, ended = Deflate(raw=True), False
        for piece in raw:
            if ended:
                raise broken("there is more after the content", entry.name)
            while True:
                try:
                    output = inflater.decompress(piece, OUTPUT)
                except GZIP.errors() as error:
                    raise broken(f"the content is damaged: {error}", entry.name) from error
                if output:
                    yield output
                ended = inflater.eof
                if ended or inflater.needs_input:
                    break
        if not ended or inflater.unused_data:
            raise broken("the content is damaged", entry.name)


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)


def _is_end(tail: bytes, at: int) -> bool:
    """Whether an end record at this place, with its comment, reaches exactly to the end."""
    if at + _END.size > len(tail):
        return False
    comment: int = _END.unpack_from(tail, at)[-1]
    return at + _END.size + comment == len(tail)


def _entries(data: bytes) -> Iterator[_Entry]:
    """The list of entries. Raises Refused."""
    at = 0
    while at < len(data):
        if len(data) - at < _LISTED.size:
            raise broken("the list of entries is malformed")
        fields = _LISTED.unpack_from(data, at)
        magic, _, host, _, _, flags, method, time, date, crc, packed, size = fields[:12]
        names, extras, comment, disk, _, attributes, start = fields[12:]
        at += _LISTED.size
        wrong = magic != b"PK\x01\x02"
        name, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comment
        if wrong or at > len(data):
            raise broken("the list of entries is malformed")
        _check_entry(name, flags, method)
        more = _extras(extra, name)
        size, packed, start, disk = _wide((size, packed, start, disk), more.get(_ZIP64, b""), name)
        if disk:
            raise unsupported("zip archives in several parts are not supported", name)
        own_name = more.get(_UNIX_NAME, b"")
        if own_name and own_name[5:] != name:
            raise broken("the entry has two names", name)
        mtime = _mtime(more.get(_UNIX_TIME, b""), date, time)
        yield _Entry(name, host, flags, method, crc, packed, size, attributes, start, mtime)


def _check_entry(name: bytes, flags: int, method: int) -> None:
    if b"\0" in name:
        raise broken("the entry's name is malformed", name)
    if b"\\" in name:
        raise harmful("a path with a backslash, which is no separator", name)
    if flags & (_ENCRYPTED | _STRONG | _MASKED):
        raise unsupported("encrypted entries are not supported", name)
    if method not in (_STORED, _DEFLATED):
        raise unsupported(f"compression method {method} is not supported", name, "use deflate")
    if flags & _UTF8:
        try:
            name.decode()
        except UnicodeDecodeError:
            raise broken("the entry's name is malformed", name) from None


def _extras(data: bytes, name: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):  # what is shorter is padding, as some tools align entries with
        kind, size = struct.unpack_from("<2H", data, at)
        at += 4 + size
        if at > len(data) or kind in found:
            raise broken("the entry's extra fields are malformed", name)
        found[kind] = data[at - size : at]
    return found


def _wide(fields: tuple[int, int, int, int], extra: bytes, name: bytes) -> list[int]:
    """Size, packed size, start and disk, those that say so taken from the zip64 field."""
    found, at = [], 0
    for value, full, width in zip(fields, (_FULL32, _FULL32, _FULL32, _FULL16), (8, 8, 8, 4), strict=True):
        if value == full:
            if at + width > len(extra):
                raise broken("the entry's zip64 field is malformed", name)
            value = int.from_bytes(extra[at : at + width], "little")
            at += width
            if value >= 1 << 63:
                raise broken("a number of the entry is out of range", name)
        found.append(value)
    return found


def _mtime(extra: bytes, date: int, time: int) -> int:
    """In nanoseconds. Without Unix's own field the time is taken as UTC, whatever zone it was meant in."""
    if len(extra) >= 5 and extra[0] & 1:
        return max(0, int.from_bytes(extra[1:5], "little", signed=True)) * 1_000_000_000
    try:
        moment = datetime(
            1980 + (date >> 9),
            (date >> 5) & 15,
            date & 31,
            time >> 11,
            (time >> 5) & 63,
            (time & 31) * 2,
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp()) * 1_000_000_000


def _header(entry: _Entry) -> Header:
    """The entry as tar would have it. Raises Refused for what is no file, directory or link."""
    mode = entry.attributes >> 16 if entry.host in (_UNIX, _DARWIN) else 0
    kind = stat.S_IFMT(mode)
    directory = entry.name.endswith(b"/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise harmful("is a device, a FIFO or a socket", entry.name)
    if directory and kind not in (0, stat.S_IFDIR):
        raise broken("is a directory by its name, and none by its mode", entry.name)
    letter = b"5" if directory or kind == stat.S_IFDIR else b"2" if kind == stat.S_IFLNK else b"0"
    return Header(entry.name, letter, entry.size, stat.S_IMODE(mode), entry.mtime, b"")
