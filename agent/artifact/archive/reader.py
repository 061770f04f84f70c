"""A tar stream, read piece by piece as it comes in, handed on entry by entry.

The grammar (tar(5)): an archive is a sequence of members and ends with two blocks of zeros, after which
only zeros may follow. A member is any of the extension headers `x`, `L`, `K`, each with a body of its own,
then the header of the file itself, then its body; bodies are padded to full blocks. A global header `g`
speaks for all members after it (git archive names its commit there).

    archive ::= (global | member)* end          member ::= extension* header body padding

`TarReader` is a generator turned inside out: `_archive` reads as if it could wait for bytes, and `feed`
resumes it when they are there. Bodies are never held; extension bodies are bounded.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from agent.artifact.archive import sparse
from agent.artifact.archive.headers import BLOCK, ZEROS, Header, apply_pax, number, parse, parse_pax
from agent.artifact.archive.refusal import broken, harmful, shown, too_large, unsupported
from agent.artifact.limits import Limits

Piece = bytes | memoryview
# What the generator asks for: n > 0 means exactly n bytes at once, n < 0 means 1 to -n bytes.
Want = int

_FILES = (b"0", b"\0", b"7")  # regular, regular before POSIX, contiguous
_DEVICES = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
_EXTENSIONS = (b"x", b"L", b"K")


class Sink(Protocol):
    """Takes the entries in order. Each may raise Refused or OSError."""

    def directory(self, header: Header) -> None:
        """A directory."""

    def begin(self, header: Header) -> None:
        """A regular file of `header.size` bytes begins."""

    def write(self, data: Piece) -> None:
        """More of the file's content; with the holes exactly the announced size in all."""

    def hole(self, size: int) -> None:
        """So many bytes of zeros that were not stored."""

    def end(self) -> None:
        """The file is whole."""

    def symlink(self, header: Header) -> None:
        """A symbolic link to `header.link`."""

    def hardlink(self, header: Header) -> None:
        """Another name for the earlier file `header.link`."""


class TarReader:
    """Feed it the bytes of a tar archive, then `finish`."""

    def __init__(self, sink: Sink, limits: Limits) -> None:
        self._sink = sink
        self._limits = limits
        self._entries = 0
        self._block = ZEROS  # the last header, as it came
        self.entry = b""  # the name of the entry that is being read
        self._held = bytearray()
        self._parser = self._archive()
        self._want: Want = next(self._parser)
        self._ended = False  # both end blocks were seen

    def feed(self, data: Piece) -> None:
        """Read on. Raises Refused, and what the sink raises; the reader is of no use afterwards."""
        view, position, end = memoryview(data), 0, len(data)
        while True:
            want = self._want
            piece: Piece
            if want < 0:
                if position == end:
                    return
                piece = view[position : position - want]
            elif not self._held and end - position >= want:
                piece = view[position : position + want]
            else:
                missing = view[position : position + want - len(self._held)]
                self._held += missing
                if len(self._held) < want:
                    return
                self._want = self._parser.send(bytes(self._held))
                self._held.clear()
                position += len(missing)
                continue
            position += len(piece)
            self._want = self._parser.send(piece)

    def finish(self) -> None:
        """There is no more. Raises Refused when the archive is not whole."""
        if not self._ended or self._held:
            raise broken("the archive ends too early")

    def _archive(self) -> Generator[Want, Piece, None]:
        while True:
            block = bytes((yield BLOCK))
            if block == ZEROS:
                if (yield BLOCK) != ZEROS:
                    raise broken("there is more after a block of zeros")
                break
            header = self._header(block)
            if header.kind == b"g":
                self._check_global(parse_pax((yield from self._extension(header)), header.name), header)
            else:
                yield from self._member(header)
        self._ended = True
        while True:
            padding = yield -BLOCK
            if padding != ZEROS[: len(padding)]:
                raise broken("there is more after the end of the archive")

    def _member(self, header: Header) -> Generator[Want, Piece, None]:
        records: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}  # GNU's long name (L) and long link (K)
        while header.kind in _EXTENSIONS:
            kind, owner = header.kind, header.name
            data = yield from self._extension(header)
            if kind in long or (kind == b"x" and records):
                raise broken("two extension headers of one kind for one entry", owner)
            if kind == b"x":
                records = parse_pax(data, owner)
            else:
                long[kind] = _gnu_text(data, owner)
            header = self._header(bytes((yield BLOCK)))
        if (b"L" in long and b"path" in records) or (b"K" in long and b"linkpath" in records):
            raise broken("the entry has two long names", header.name)
        header.name = long.get(b"L", header.name)
        header.link = long.get(b"K", header.link)
        if records:
            apply_pax(header, records)
        if sparse.is_sparse(records):
            yield from self._sparse_pax(header, records)
        elif header.kind == b"S":
            yield from self._sparse_gnu(header)
        else:
            yield from self._entry(header)

    def _entry(self, header: Header) -> Generator[Want, Piece, None]:
        kind, name = header.kind, header.name
        self.entry = name
        if kind in _FILES and not (kind != b"7" and name.endswith(b"/")):
            yield from self._file(header)
            return
        if kind in _DEVICES:
            raise harmful(f"is {_DEVICES[kind]}", name)
        if kind not in _FILES and kind not in (b"5", b"2", b"1"):
            raise unsupported(f"entries of type {shown(kind)} are not supported", name)
        if header.size:
            # With or without a body? Readers differ, so that one would read the body as headers.
            raise broken("what is not a file has a size", name)
        if kind == b"2":
            self._sink.symlink(header)
        elif kind == b"1":
            self._sink.hardlink(header)
        else:
            self._sink.directory(header)

    def _file(self, header: Header) -> Generator[Want, Piece, None]:
        self._sink.begin(header)
        left = header.size
        while left:
            piece = yield -left
            self._sink.write(piece)
            left -= len(piece)
        self._sink.end()
        yield from self._padding(header)

    def _sparse_gnu(self, header: Header) -> Generator[Want, Piece, None]:
        self.entry = header.name
        size = number(self._block[sparse.REAL_SIZE], header.name)
        extents = sparse.gnu_extents(self._block[sparse.IN_HEADER], header.name)
        more = self._block[sparse.MORE_IN_HEADER]
        while more:
            block = bytes((yield BLOCK))
            extents += sparse.gnu_extents(block[sparse.IN_BLOCK], header.name)
            sparse.bound(len(extents), header, self._limits)
            more = block[sparse.MORE_IN_BLOCK]
        yield from self._sparse_body(header, extents, header.size, size)

    def _sparse_pax(self, header: Header, records: dict[bytes, bytes]) -> Generator[Want, Piece, None]:
        if header.kind not in _FILES:
            raise broken("what is not a file is sparse", header.name)
        size = sparse.take_name_and_size(header, records)
        self.entry = header.name
        extents = sparse.listed(records, header)
        stored = header.size
        if extents is None:
            lines: list[bytes] = []
            text, wanted = b"", 1
            while len(lines) < wanted:
                stored -= BLOCK
                if stored < 0 or len(text) > BLOCK:
                    raise broken("the list of a sparse file's parts ends too early", header.name)
                *whole, text = (text + bytes((yield BLOCK))).split(b"\n")
                lines += whole
                if lines:
                    wanted = 1 + 2 * sparse.count(lines[0], header, self._limits)
            extents = sparse.parsed(lines[1:wanted], header)
        yield from self._sparse_body(header, extents, stored, size)

    def _sparse_body(
        self, header: Header, extents: list[sparse.Extent], stored: int, size: int
    ) -> Generator[Want, Piece, None]:
        sparse.check(extents, stored, size, header)
        header.size = size
        self._sink.begin(header)
        position = 0
        for offset, left in extents:
            self._sink.hole(offset - position)
            position = offset + left
            while left:
                piece = yield -left
                self._sink.write(piece)
                left -= len(piece)
        self._sink.hole(size - position)
        self._sink.end()
        if stored % BLOCK:
            yield -stored % BLOCK

    def _extension(self, header: Header) -> Generator[Want, Piece, bytes]:
        if header.size > self._limits.header:
            raise too_large(f"an extension header of {header.size} bytes", header.name)
        data = bytes((yield header.size)) if header.size else b""
        yield from self._padding(header)
        return data

    def _padding(self, header: Header) -> Generator[Want, Piece, None]:
        padding = -header.size % BLOCK
        if padding:
            yield padding

    def _header(self, block: bytes) -> Header:
        if block == ZEROS:
            raise broken("the archive ends after an extension header")
        header = parse(block)
        self._block = block
        self._entries += 1
        if self._entries > self._limits.entries:
            raise too_large(f"more than {self._limits.entries} entries", header.name)
        return header

    def _check_global(self, records: dict[bytes, bytes], header: Header) -> None:
        for key in (b"path", b"linkpath", b"size"):
            if key in records:
                raise broken(f"a global PAX record sets {key.decode()} for every entry", header.name)
        if sparse.is_sparse(records):
            raise broken("a global PAX record makes every entry sparse", header.name)


def _gnu_text(data: bytes, owner: bytes) -> bytes:
    text = data.split(b"\0", 1)[0]
    if not text:
        raise broken("an empty long name", owner)
    return text
