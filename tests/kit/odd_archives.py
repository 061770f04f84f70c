"""Sparse files and compressions for tests, and a shelf of bad ones."""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import Any

from tests.kit.archives import BLOCK, Bad, Tar, header, octal, padded, records

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Extents = list[tuple[int, int]]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(
        data,
        options={zstd.CompressionParameter.checksum_flag: 1},  # as the zstd program does
    ),
}


def gnu_sparse(
    name: str, extents: Extents, size: int, content: bytes, *, more: Extents | None = None
) -> bytes:
    """A sparse file of GNU's type S; `more` goes into a block behind the header."""
    block = bytearray(header(name, kind=b"S", size=len(content), magic=b"ustar  \0"))
    block[148:156] = b" " * 8
    places = b"".join(octal(a, 12) + octal(b, 12) for a, b in extents)
    block[386 : 386 + len(places)] = places
    block[482] = more is not None
    block[483:495] = octal(size, 12)
    block[148:156] = b"%06o\0 " % sum(block)
    behind = b"".join(octal(a, 12) + octal(b, 12) for a, b in more or []).ljust(BLOCK, b"\0")
    return bytes(block) + (behind if more is not None else b"") + padded(content)


def pax_sparse(name: str, listing: bytes, size: int | str, content: bytes, **more: str) -> bytes:
    """A sparse file of PAX 1.0, its list as it stands."""
    told = records(
        GNU__sparse__major="1",
        GNU__sparse__minor="0",
        GNU__sparse__name=name,
        GNU__sparse__realsize=str(size),
        **more,
    )
    body = padded(listing) + content
    return bytes(Tar().pax(told).file("GNUSparseFile.0/f", body).data)


def damaged(data: bytes, position: int) -> bytes:
    """With one byte changed."""
    copy = bytearray(data)
    copy[position] ^= 0x55
    return bytes(copy)


def _compressed() -> dict[str, Bad]:
    broken = "ArchiveBroken"
    tar = Tar().file("f", b"content" * 100).end()
    shelf: dict[str, Bad] = {}
    for name, compress in COMPRESS.items():
        data = compress(tar)
        shelf |= {
            f"{name} cut short": Bad(data[:-1], broken, name),
            f"{name} cut in its data": Bad(data[: len(data) // 2], broken, name),
            f"{name} damaged": Bad(damaged(data, len(data) // 2), broken),
            f"{name} with a wrong checksum": Bad(damaged(data, -1 if name == "zstd" else -12), broken),
            f"{name} with garbage after it": Bad(data + b"garbage", broken, name),
            f"{name} with zeros after it": Bad(data + bytes(BLOCK), broken, name),
            f"{name} whose second member is cut": Bad(data + compress(b"")[:-1], broken, name),
            f"{name} of a tar without its end": Bad(compress(tar[:-BLOCK]), broken),
            f"{name} of a path that leaves": Bad(
                compress(Tar().file("../evil").end()), "ArchiveRefused", "../evil"
            ),
            f"{name} of one file": Bad(compress(b"#!/bin/sh\n" * 60), "ArchiveUnsupported", name),
            f"{name} in {name}": Bad(compress(data.ljust(600)), "ArchiveUnsupported", name),
            f"{name} of nothing": Bad(compress(b""), "ArchiveUnsupported"),
        }
    return shelf


def _sparse() -> dict[str, Bad]:
    broken, large = "ArchiveBroken", "ArchiveTooLarge"

    def gnu(*arguments: Any, **options: Any) -> bytes:
        return Tar().raw(gnu_sparse("s", *arguments, **options)).end()

    def pax(listing: bytes, size: int | str = 10_000, content: bytes = bytes(BLOCK), **more: str) -> bytes:
        return Tar().raw(pax_sparse("s", listing, size, content, **more)).end()

    one = b"1\n0\n512\n"
    return {
        "sparse: parts that overlap": Bad(gnu([(0, 512), (100, 512)], 9000, bytes(1024)), broken, "'s'"),
        "sparse: parts out of order": Bad(gnu([(1024, 512), (0, 512)], 9000, bytes(1024)), broken, "'s'"),
        "sparse: a part outside": Bad(gnu([(8000, 512)], 8100, bytes(512)), broken, "'s'"),
        "sparse: more stored than listed": Bad(gnu([(0, 512)], 9000, bytes(1024)), broken, "'s'"),
        "sparse: less stored than listed": Bad(gnu([(0, 1024)], 9000, bytes(512)), broken, "'s'"),
        "sparse: a size beyond the limit": Bad(pax(one, 1 << 50), large, "'s'"),
        "sparse: blocks cut short": Bad(gnu_sparse("s", [(0, 512)], 9000, b"", more=[])[:-BLOCK], broken),
        "sparse: blocks without end": Bad(
            gnu_sparse("s", [], 9000, b"", more=[])[:BLOCK]
            + ((octal(0, 12) + octal(0, 12)) * 21 + b"\1".ljust(8, b"\0")) * 3000,
            large,
        ),
        "sparse: a path that leaves": Bad(
            Tar().raw(gnu_sparse("../evil", [(0, 1)], 10, b"x")).end(), "ArchiveRefused", "../evil"
        ),
        "sparse: a PAX name that leaves": Bad(
            Tar().raw(pax_sparse("../evil", one, 600, bytes(512))).end(), "ArchiveRefused", "../evil"
        ),
        "sparse: a PAX name without an end": Bad(
            Tar().raw(pax_sparse("a\0b", one, 600, bytes(512))).end(), broken
        ),
        "sparse: a PAX size that is none": Bad(pax(one, "-1"), broken),
        "sparse: no PAX size": Bad(
            Tar().pax(records(GNU__sparse__major="1", GNU__sparse__minor="0")).file("s").end(), broken
        ),
        "sparse: an unknown version": Bad(pax(one, GNU__sparse__map="0,1")[:0] + Tar().pax(
            records(GNU__sparse__major="2", GNU__sparse__minor="0", GNU__sparse__size="1")).file("s").end(),
            "ArchiveUnsupported"),
        "sparse: the first PAX version": Bad(
            Tar().pax(records(GNU__sparse__size="9", GNU__sparse__numblocks="1", GNU__sparse__offset="0"))
            .file("s").end(), "ArchiveUnsupported"),
        "sparse: a PAX list of words": Bad(pax(b"one\n"), broken),
        "sparse: a PAX list without lines": Bad(pax(b"1" * 2000), broken),
        "sparse: a PAX list too long": Bad(pax(b"99999999\n"), large),
        "sparse: a PAX list that ends early": Bad(pax(b"400\n0\n"), broken),
        "sparse: a negative part": Bad(pax(b"1\n-5\n512\n"), broken),
        "sparse: an odd map": Bad(
            Tar().pax(records(GNU__sparse__size="9", GNU__sparse__map="0,1,2")).file("s").end(), broken
        ),
        "sparse: for every entry": Bad(
            Tar().pax(records(GNU__sparse__size="9"), b"g").file("s").end(), broken
        ),
        "sparse: a link": Bad(
            Tar().pax(records(GNU__sparse__size="9", GNU__sparse__map="0,1")).symlink("s", "x").end(), broken
        ),
    }  # fmt: skip


BAD_ODD = {**_compressed(), **_sparse()}
