"""Archives for tests: made block by block, so that they can be wrong in every way, and a shelf of bad ones.

Tar().file("bin/web", b"...", mode=0o755).symlink("latest", "bin/web").end()      # bytes
HOSTILE["a path that leaves"].data, .reason                                       # must be refused so
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import Self

BLOCK = 512


def text(name: str | bytes) -> bytes:
    """Names may be given as str or bytes."""
    return name.encode() if isinstance(name, str) else name


def padded(data: bytes) -> bytes:
    """Filled up to full blocks."""
    return data + bytes(-len(data) % BLOCK)


def octal(value: int, width: int) -> bytes:
    """A number field as every tar writes it."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """A number field as GNU tar writes what does not fit."""
    if value < 0:
        return b"\xff" + (value & ((1 << 8 * (width - 1)) - 1)).to_bytes(width - 1, "big")
    return b"\x80" + value.to_bytes(width - 1, "big")


def header(
    name: str | bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int = 0o644,
    mtime: int | bytes = 1_700_000_000,
    link: str | bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: str | bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block. Numbers given as bytes, and a checksum, are taken as they are."""
    block = bytearray(BLOCK)

    def put(offset: int, field: bytes) -> None:
        block[offset : offset + len(field)] = field

    put(0, text(name)[:100])
    put(100, octal(mode, 8) + octal(0, 8) + octal(0, 8))
    put(124, size if isinstance(size, bytes) else octal(size, 12))
    put(136, mtime if isinstance(mtime, bytes) else octal(mtime, 12))
    put(148, b" " * 8)
    put(156, kind)
    put(157, text(link)[:100])
    put(257, magic)
    put(345, text(prefix)[:155])
    put(148, checksum if checksum is not None else b"%06o\0 " % sum(block))
    return bytes(block)


def records(**values: str | bytes) -> bytes:
    """PAX records; `__` in a key stands for a dot."""
    return b"".join(record(key.replace("__", "."), value) for key, value in values.items())


def record(key: str, value: str | bytes) -> bytes:
    """One PAX record, its length counting itself."""
    rest = b" " + text(key) + b"=" + text(value) + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


class Tar:
    """An archive under construction; everything goes on its end."""

    def __init__(self) -> None:
        self.data = bytearray()

    def raw(self, data: bytes) -> Self:
        """Bytes as they are."""
        self.data += data
        return self

    def file(self, name: str | bytes, content: bytes = b"content", mode: int = 0o644) -> Self:
        """A regular file."""
        return self.raw(header(name, size=len(content), mode=mode) + padded(content))

    def directory(self, name: str | bytes, mode: int = 0o755) -> Self:
        """A directory."""
        return self.raw(header(name, kind=b"5", mode=mode))

    def symlink(self, name: str | bytes, target: str | bytes) -> Self:
        """A symbolic link."""
        return self.raw(header(name, kind=b"2", mode=0o777, link=target))

    def hardlink(self, name: str | bytes, target: str | bytes) -> Self:
        """A hard link."""
        return self.raw(header(name, kind=b"1", link=target))

    def special(self, name: str, kind: bytes) -> Self:
        """Anything else without a body."""
        return self.raw(header(name, kind=kind))

    def pax(self, body: bytes, kind: bytes = b"x") -> Self:
        """An extended header with these records; kind g for a global one."""
        return self.raw(header("PaxHeader", kind=kind, size=len(body)) + padded(body))

    def long(self, name: str | bytes, kind: bytes = b"L") -> Self:
        """GNU's long name (L) or long link (K) for the next entry."""
        body = text(name) + b"\0"
        magic = b"ustar  \0"
        return self.raw(
            header("././@LongLink", kind=kind, size=len(body), magic=magic, mtime=0) + padded(body)
        )

    def end(self) -> bytes:
        """All of it, with its end blocks."""
        return bytes(self.data) + bytes(2 * BLOCK)


@dataclass(frozen=True)
class Bad:
    """An archive that must be refused with this reason, and a message that holds `names`."""

    data: bytes
    reason: str
    names: str = ""


def _members(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def _damaged(data: bytes, position: int) -> bytes:
    copy = bytearray(data)
    copy[position] ^= 1
    return bytes(copy)


def _pathmax() -> bytes:
    """Directories too long for realpath(3), walked by links, to step out unseen (as CVE-2025-4517 did)."""
    tar, long, here = Tar(), "d" * 247, ""
    for step in "abcdefghijklmnop":
        tar.long(here + long).directory("x")
        tar.long(here + step).long(long, b"K").symlink("x", "x")
        here += f"{long}/"
    link = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    tar.long(link).long("../" * 16, b"K").symlink("x", "x")
    tar.long(link + "/../../../evil", b"K").symlink("escape", "x")
    return tar.file("escape/evil").end()


def _shelf() -> dict[str, Bad]:
    refused, broken = "ArchiveRefused", "ArchiveBroken"
    good = Tar().file("a").end()
    zipped = gzip.compress(good, mtime=0)
    file = header("f", size=7) + padded(b"content")
    deep = "/".join("d" * 65)
    return {
        # paths
        "a path that leaves": Bad(Tar().file("../evil").end(), refused, "../evil"),
        "a path that leaves from below": Bad(Tar().file("a/b/../../../evil").end(), refused, "evil"),
        "dots within the tree": Bad(Tar().file("a/../b").end(), refused, "a/../b"),
        "a directory that leaves": Bad(Tar().directory("../evil/").end(), refused, "../evil"),
        "an absolute path": Bad(Tar().file("/evil").end(), refused, "/evil"),
        "two slashes": Bad(Tar().file("//evil").end(), refused),
        "a prefix that leaves": Bad(
            Tar().raw(header("evil", size=0, prefix="../..")).end(), refused, "../../evil"
        ),
        "a GNU name that leaves": Bad(Tar().long("../evil").file("ok").end(), refused, "../evil"),
        "a PAX path that leaves": Bad(Tar().pax(records(path="../evil")).file("ok").end(), refused),
        "a PAX path that is absolute": Bad(Tar().pax(records(path="/evil")).file("ok").end(), refused),
        "a PAX path with a NUL": Bad(Tar().pax(records(path=b"ok\0/evil")).file("ok").end(), broken),
        "an empty name": Bad(Tar().file("").end(), broken),
        "an empty GNU name": Bad(Tar().long("").file("ok").end(), broken),
        "a path too deep": Bad(Tar().pax(records(path=deep)).file("x").end(), "ArchiveTooLarge"),
        "a name too long": Bad(Tar().pax(records(path="n" * 256)).file("x").end(), "ArchiveTooLarge"),
        "a path too long": Bad(
            Tar().pax(records(path="/".join(["n" * 200] * 25))).file("x").end(), "ArchiveTooLarge"
        ),
        "a directory tree past PATH_MAX": Bad(_pathmax(), refused),
        # symbolic links
        "a link to an absolute path": Bad(Tar().symlink("l", "/etc/passwd").end(), refused, "'l'"),
        "a link out": Bad(Tar().symlink("l", "../evil").end(), refused, "'l'"),
        "a link out from below": Bad(Tar().directory("a/b").symlink("a/b/l", "../../../x").end(), refused),
        "a link that goes out and comes back": Bad(Tar().symlink("l", "../tree/x").end(), refused),
        "links that leave together": Bad(
            Tar().directory("a/b").symlink("a/b/s", "../..").symlink("t", "a/b/s/../x").end(), refused, "'t'"
        ),
        "links that leave together, told backwards": Bad(
            Tar().symlink("t", "a/s/../x").directory("a").symlink("a/s", "..").end(), refused, "'t'"
        ),
        "a link to itself": Bad(Tar().symlink("l", "l").end(), refused, "'l'"),
        "two links to one another": Bad(Tar().symlink("a", "b").symlink("b", "a").end(), refused),
        "a link without target": Bad(Tar().symlink("l", "").end(), refused),
        "a GNU link target that leaves": Bad(Tar().long("../evil", b"K").symlink("l", "x").end(), refused),
        "a PAX link target that leaves": Bad(
            Tar().pax(records(linkpath="../evil")).symlink("l", "x").end(), refused
        ),
        "a link that leads too deep": Bad(
            Tar().pax(records(linkpath="/".join("d" * 2000))).symlink("l", "x").end(), refused
        ),
        "a file through a link": Bad(
            Tar().directory("real").symlink("l", "real").file("l/evil").end(), refused, "l/evil"
        ),
        "a file through a link out": Bad(Tar().symlink("l", "..").file("l/evil").end(), refused),
        "a directory through a link out": Bad(Tar().symlink("l", "..").directory("l/evil").end(), refused),
        "a link through a link": Bad(Tar().symlink("l", "..").symlink("l/evil", "x").end(), refused),
        "a hard link through a link": Bad(Tar().symlink("l", "..").hardlink("h", "l/canary").end(), refused),
        "a file over a link": Bad(Tar().symlink("l", "../evil").file("l").end(), refused, "'l'"),
        "a directory over a link": Bad(Tar().symlink("l", "..").directory("l").end(), refused, "'l'"),
        # hard links
        "a hard link to an absolute path": Bad(Tar().hardlink("h", "/etc/passwd").end(), refused, "'h'"),
        "a hard link out": Bad(Tar().hardlink("h", "../canary").end(), refused, "'h'"),
        "a hard link to a link": Bad(
            Tar().symlink("l", "f").hardlink("h", "l").file("f").end(), refused, "'h'"
        ),
        "a hard link to a directory": Bad(Tar().directory("d").hardlink("h", "d").end(), refused),
        "a hard link to what comes later": Bad(Tar().hardlink("h", "f").file("f").end(), refused),
        "a hard link to itself": Bad(Tar().hardlink("h", "h").end(), refused),
        "a hard link to the root": Bad(Tar().hardlink("h", ".").end(), refused),
        # kinds and modes
        "a character device": Bad(Tar().special("null", b"3").end(), refused, "'null'"),
        "a block device": Bad(Tar().special("sda", b"4").end(), refused, "'sda'"),
        "a FIFO": Bad(Tar().special("fifo", b"6").end(), refused, "'fifo'"),
        "set-user-id": Bad(Tar().file("su", mode=0o4755).end(), refused, "'su'"),
        "set-group-id": Bad(Tar().file("sg", mode=0o2755).end(), refused, "'sg'"),
        "a volume label": Bad(Tar().special("v", b"V").end(), "ArchiveUnsupported"),
        "a continued volume": Bad(Tar().special("m", b"M").end(), "ArchiveUnsupported"),
        "an unknown kind": Bad(Tar().special("q", b"?").end(), "ArchiveUnsupported"),
        # twice
        "a file twice": Bad(Tar().file("f").file("f", b"other").end(), refused, "'f'"),
        "a file twice, spelt differently": Bad(Tar().file("f").file("./f").end(), refused),
        "a file over a directory": Bad(Tar().directory("d").file("d").end(), refused),
        "a directory over a file": Bad(Tar().file("f").directory("f").end(), refused),
        "a file below a file": Bad(Tar().file("f").file("f/g").end(), refused, "f/g"),
        # headers
        "a wrong header checksum": Bad(
            Tar().file("a").raw(header("b", checksum=b"000001\0 ")).end(), broken, "'b'"
        ),
        "a malformed size": Bad(Tar().raw(header("f", size=b"0o7\0")).end(), broken, "'f'"),
        "a signed size": Bad(Tar().raw(header("f", size=b"-1\0")).end(), broken),
        "a negative size": Bad(Tar().raw(header("f", size=base256(-512, 12))).end(), broken),
        "a size beyond all files": Bad(Tar().raw(header("f", size=base256(1 << 70, 12))).end(), broken),
        "a size beyond the limit": Bad(
            Tar().raw(header("f", size=base256(1 << 50, 12))).end(), "ArchiveTooLarge", "'f'"
        ),
        "a directory with a body": Bad(Tar().raw(header("d", kind=b"5", size=7) + file).end(), broken),
        "a link with a body": Bad(Tar().raw(header("l", kind=b"2", size=512, link="x") + file).end(), broken),
        "a PAX size for a directory": Bad(
            Tar().pax(records(size="512")).directory("d").raw(file).end(), broken
        ),
        "a PAX size that is none": Bad(Tar().pax(records(size="-7")).file("f").end(), broken),
        "a PAX record too long": Bad(Tar().pax(b"99 path=x\n").file("f").end(), broken),
        "a PAX record too short": Bad(Tar().pax(b"3 path=x\n").file("f").end(), broken),
        "a PAX record without length": Bad(Tar().pax(b"path=x\n").file("f").end(), broken),
        "a PAX record without newline": Bad(Tar().pax(b"9 path=xy").file("f").end(), broken),
        "a PAX record without key": Bad(Tar().pax(b"5 =x\n").file("f").end(), broken),
        "a PAX path twice": Bad(Tar().pax(record("path", "a") + record("path", "b")).file("f").end(), broken),
        "a PAX time that is none": Bad(Tar().pax(records(mtime="soon")).file("f").end(), broken),
        "a global PAX path": Bad(Tar().pax(records(path="x"), b"g").file("f").end(), broken),
        "two PAX headers in a row": Bad(
            Tar().pax(records(path="a")).pax(records(path="b")).file("f").end(), broken
        ),
        "a global header between": Bad(
            Tar().pax(records(path="a")).pax(records(comment="b"), b"g").file("f").end(), "ArchiveUnsupported"
        ),
        "two GNU names in a row": Bad(Tar().long("a").long("b").file("f").end(), broken),
        "a GNU name and a PAX path": Bad(Tar().long("a").pax(records(path="b")).file("f").end(), broken),
        "an extension of nothing": Bad(Tar().file("f").pax(records(path="b")).end(), broken),
        "an extension too large": Bad(
            Tar().raw(header("x", kind=b"x", size=2 << 20)).end(), "ArchiveTooLarge"
        ),
        # ends
        "no end blocks": Bad(file, broken),
        "one end block": Bad(file + bytes(BLOCK), broken),
        "a header cut short": Bad(file + file[:100], broken),
        "a body cut short": Bad(header("f", size=5000) + bytes(600), broken),
        "padding cut short": Bad(file + header("g", size=7) + b"content", broken),
        "garbage after the end": Bad(good + b"x", broken),
        "an archive after the end": Bad(good + good, broken),
        "an entry after one block of zeros": Bad(file + bytes(BLOCK) + Tar().file("g").end(), broken),
        # gzip
        "gzip cut short": Bad(zipped[:-1], broken),
        "gzip cut in its data": Bad(zipped[: len(zipped) // 2], broken),
        "gzip with a wrong checksum": Bad(_damaged(zipped, len(zipped) - 8), broken),
        "gzip with a wrong length": Bad(_damaged(zipped, len(zipped) - 1), broken),
        "gzip with garbage after it": Bad(zipped + b"garbage", broken),
        "gzip with zeros after it": Bad(zipped + bytes(512), broken),
        "gzip whose second member is damaged": Bad(_damaged(_members(good[:600], good[600:]), -8), broken),
        "gzip whose second member is cut": Bad(_members(good[:600], good[600:])[:-9], broken),
        "gzip of a tar without its end": Bad(gzip.compress(file, mtime=0), broken),
        "gzip with reserved flags": Bad(zipped[:3] + b"\xff" + zipped[4:], broken),
        # not for us
        "nothing": Bad(b"", "ArchiveEmpty"),
        "an archive of nothing but its root": Bad(Tar().directory("./").end(), "ArchiveEmpty"),
        "an archive of nothing at all": Bad(bytes(1024), "ArchiveEmpty"),
        "gzip of nothing": Bad(gzip.compress(b""), "ArchiveUnsupported"),
        "gzip of one file": Bad(gzip.compress(b"#!/bin/sh\n"), "ArchiveUnsupported"),
        "gzip of an archive of nothing": Bad(gzip.compress(bytes(10240)), "ArchiveEmpty"),
        "gzip in gzip": Bad(gzip.compress(zipped), "ArchiveUnsupported"),
        "7z": Bad(b"7z\xbc\xaf\x27\x1c" + bytes(100), "ArchiveUnsupported", "7z"),
        "rar": Bad(b"Rar!" + bytes(1000), "ArchiveUnsupported", "rar"),
    }


HOSTILE = _shelf()


def bomb(size: int) -> bytes:
    """A tar.gz of one file of zeros of `size` bytes, about a thousand times smaller."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [deflate.compress(header("zeros", size=size))]
    parts += [deflate.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(parts) + deflate.compress(bytes(1024)) + deflate.flush()
