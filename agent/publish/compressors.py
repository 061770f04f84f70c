"""How an archive is compressed, by the ending of its name.

| ending | | the same bytes everywhere |
|---|---|---|
| .tar | not at all | always |
| .tar.bz2 | small, slow to unpack | yes: bzip2's encoder has not changed for two decades |
| .tar.zst | small, fastest to unpack | where libzstd has the same version |
| .tar.gz | for other readers | where zlib has the same version and build |

xz is not among them: it makes other bytes with other versions, too, and is slower than Zstandard.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from agent.artifact.archive.inflate import zstd_module
from agent.publish.trouble import Trouble

Writing = tuple[Callable[[bytes], bytes], Callable[[], bytes]]
_ZSTD_LEVEL = 12  # a release is packed once and fetched often; above it time doubles for a percent
_GZIP_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Compressor:
    """`start` gives two functions: of more bytes, and of the end. `library` is named as in `Packed`."""

    endings: tuple[str, ...]
    start: Callable[[], Writing]
    library: Callable[[], str] = lambda: ""


def _plain() -> Writing:
    return lambda data: data, lambda: b""


def _bzip2() -> Writing:
    compressor = bz2.BZ2Compressor(9)
    return compressor.compress, compressor.flush


def _gzip() -> Writing:
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=31)
    return compressor.compress, compressor.flush


def _zstd() -> Writing:
    compressor = zstd_module().ZstdCompressor(level=_ZSTD_LEVEL)
    return compressor.compress, compressor.flush


KNOWN = (
    Compressor((".tar",), _plain),
    Compressor((".tar.zst", ".tzst"), _zstd, lambda: f"libzstd {zstd_module().zstd_version}"),
    Compressor((".tar.gz", ".tgz"), _gzip, lambda: f"zlib {zlib.ZLIB_RUNTIME_VERSION}"),
    Compressor((".tar.bz2", ".tbz2"), _bzip2),
)


def by_name(name: str) -> Compressor:
    """What the ending of a file's name asks for. Raises Trouble."""
    for compressor in KNOWN:
        if name.lower().endswith(compressor.endings):
            return compressor
    raise Trouble(f"{name}: no archive has that ending", "end it with .tar, .tar.zst, .tar.gz or .tar.bz2")
