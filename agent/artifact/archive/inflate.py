"""Gzip (RFC 1952) in bounded steps: ISA-L where there is a build of it, else zlib.

Several members in a row are one stream, as gzip(1) has it. Each member's checksum and length are checked;
a stream that ends inside a member, or has anything else after one, is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from agent.artifact.archive.refusal import broken, too_large
from agent.artifact.limits import Limits

try:
    from isal import isal_zlib

    _make: Any = isal_zlib.decompressobj
    _errors: Any = (zlib.error, isal_zlib.error)
except ImportError:  # no build for this machine: three times slower, otherwise the same
    _make = zlib.decompressobj
    _errors = (zlib.error,)

MAGIC = b"\x1f\x8b\x08"
_GZIP = 31  # wbits of zlib's manual: window of 32 KiB, gzip framing
_INPUT = 64 * 1024  # what is left of an input is copied in each step: keep it small
_OUTPUT = 256 * 1024


class Gunzip:
    """Feed it a gzip stream, then `finish`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._member: Any = None
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The decompressed bytes of `data`, at most 256 KiB at once. Raises Refused."""
        view = memoryview(data)
        for start in range(0, len(view), _INPUT):
            piece: bytes | memoryview = view[start : start + _INPUT]
            self._taken += len(piece)
            while len(piece):
                if self._member is None:
                    self._member = _make(wbits=_GZIP)
                while True:
                    try:
                        output: bytes = self._member.decompress(piece, _OUTPUT)
                    except _errors as error:
                        raise broken(f"the gzip data is damaged: {error}") from error
                    if output:
                        self._count(len(output))
                        yield output
                    piece = self._member.unconsumed_tail
                    # A full output may leave more inside the decompressor, even with no input left.
                    if self._member.eof or (not piece and len(output) < _OUTPUT):
                        break
                if self._member.eof:
                    piece = self._member.unused_data
                    self._member = None

    def finish(self) -> None:
        """There is no more. Raises Refused when a member is not whole."""
        if self._member is not None or not self._taken:
            raise broken("the gzip data ends too early")

    def _count(self, size: int) -> None:
        self._given += size
        limits = self._limits
        if self._given > limits.unpacked:
            raise too_large(f"unpacks to more than {limits.unpacked} bytes")
        if self._given > limits.ratio_from and self._given > self._taken * limits.ratio:
            raise too_large(
                f"unpacks to more than {limits.ratio} times its size ({self._given} bytes so far)"
            )
