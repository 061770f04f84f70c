"""Decompressing in bounded steps: gzip (RFC 1952), bzip2, xz and Zstandard (RFC 8878).

Several members in a row are one stream, as the programs of these formats have it. Checksums are checked
where a member has them; a stream that ends inside a member, or has anything else after one, is refused.
What unpacks one of them is imported when the first of them comes. Memory is bounded: xz and Zstandard may
ask for a window of 128 MiB at most, which is what their own programs use for their highest levels.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from agent.artifact.archive.refusal import broken, too_large
from agent.artifact.limits import MIB, Limits

try:
    from isal import isal_zlib

    _make: Any = isal_zlib.decompressobj
    _errors: Any = (zlib.error, isal_zlib.error)
except ImportError:  # no build for this machine: three times slower, otherwise the same
    _make = zlib.decompressobj
    _errors = (zlib.error,)

_GZIP = 31  # wbits of zlib's manual: window of 32 KiB, gzip framing
_RAW = -15  # no framing
_INPUT = 512 * 1024
_LITTLE = 64 * 1024  # of DEFLATE: what is left is copied in each step, and outputs grow by doubling
OUTPUT = MIB
_WINDOW_LOG = 27
_XZ_MEMORY = 160 * MIB  # for a window of 128 MiB


class Member(Protocol):
    """What unpacks one member, as bz2 and lzma have it."""

    @property
    def eof(self) -> bool:
        """Whether its end was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more input."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: Any, max_length: int) -> bytes:
        """At most so many more bytes."""


class Deflate:
    """zlib's kind of decompressor with the face of bz2's; `raw` is DEFLATE (RFC 1951) without a frame."""

    def __init__(self, *, raw: bool = False) -> None:
        self._inner = _make(wbits=_RAW if raw else _GZIP)
        self._left: bytes = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """Whether its end was reached."""
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""
        unused: bytes = self._inner.unused_data
        return unused

    def decompress(self, data: Any, max_length: int) -> bytes:
        """At most so many more bytes; called with nothing while `needs_input` is false."""
        output: bytes = self._inner.decompress(data if self.needs_input else self._left, max_length)
        self._left = self._inner.unconsumed_tail
        # A full output may leave more inside, even with no input left.
        self.needs_input = not self._left and len(output) < max_length
        return output


@dataclass(frozen=True, slots=True)
class Compression:
    """One format: how it begins, how a member of it is unpacked, and what damage raises."""

    name: str
    begins: Callable[[bytes], bool]
    member: Callable[[], Member]
    errors: Callable[[], tuple[type[Exception], ...]]
    step: int = _INPUT  # bytes it is given at once


def _bzip2() -> Member:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Member:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _xz_errors() -> tuple[type[Exception], ...]:
    import lzma

    return (lzma.LZMAError,)


def zstd_module() -> Any:
    """Zstandard, of the standard library where it has it."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _zstd() -> Member:
    zstd = zstd_module()
    member: Member = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    return member


def _zstd_begins(head: bytes) -> bool:
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F  # pzstd begins with such a frame
    return head.startswith(b"\x28\xb5\x2f\xfd") or skippable


GZIP = Compression("gzip", lambda head: head.startswith(b"\x1f\x8b\x08"), Deflate, lambda: _errors, _LITTLE)
BZIP2 = Compression("bzip2", lambda head: head.startswith(b"BZh"), _bzip2, lambda: (OSError, ValueError))
XZ = Compression("xz", lambda head: head.startswith(b"\xfd7zXZ\x00"), _xz, _xz_errors)
ZSTD = Compression("zstd", _zstd_begins, _zstd, lambda: (zstd_module().ZstdError,))
COMPRESSIONS = (GZIP, BZIP2, XZ, ZSTD)


class Inflater:
    """Feed it a compressed stream, then `finish`."""

    def __init__(self, kind: Compression, limits: Limits) -> None:
        self.kind = kind
        self._limits = limits
        self._errors = kind.errors()
        self._member: Member | None = None
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The decompressed bytes of `data`, at most a MiB at once. Raises Refused."""
        view = memoryview(data)
        for start in range(0, len(view), self.kind.step):
            piece: bytes | memoryview = view[start : start + self.kind.step]
            self._taken += len(piece)
            while len(piece):
                if self._member is None:
                    self._member = self.kind.member()
                while True:
                    output = self._step(self._member, piece)
                    piece = b""
                    if output:
                        self._count(len(output))
                        yield output
                    if self._member.eof or self._member.needs_input:
                        break
                if self._member.eof:
                    piece = self._member.unused_data
                    self._member = None

    def finish(self) -> None:
        """There is no more. Raises Refused when a member is not whole."""
        if self._member is not None or not self._taken:
            raise broken(f"the {self.kind.name} data ends too early")

    def _step(self, member: Member, piece: bytes | memoryview) -> bytes:
        try:
            return member.decompress(piece, OUTPUT)
        except self._errors as error:
            raise broken(f"the {self.kind.name} data cannot be unpacked: {error}") from error
        except MemoryError:
            raise too_large(f"the {self.kind.name} data asks for too much memory") from None

    def _count(self, size: int) -> None:
        self._given += size
        limits = self._limits
        if self._given > limits.unpacked:
            raise too_large(f"unpacks to more than {limits.unpacked} bytes")
        if self._given > limits.ratio_from and self._given > self._taken * limits.ratio:
            raise too_large(
                f"unpacks to more than {limits.ratio} times its size ({self._given} bytes so far)"
            )
