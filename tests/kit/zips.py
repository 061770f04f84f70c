"""Zip archives for tests, made field by field, and a shelf of bad ones.

Zip().file("bin/web", b"...", mode=0o100755).end()                          # bytes
BAD_ZIPS["a path that leaves"].data, .reason                                # must be refused so
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Self

from tests.kit.archives import Bad, text

LINK = 0o120777


class Zip:
    """An archive under construction: `listed` and `local` override what its two headers say."""

    def __init__(self, before: bytes = b"") -> None:
        self.data = bytearray(before)
        self.list = bytearray()
        self.count = 0

    def file(
        self,
        name: str | bytes,
        content: bytes = b"content",
        *,
        mode: int = 0o100644,
        host: int = 3,
        method: int = 8,
        flags: int = 0,
        extra: bytes = b"",
        packed: bytes | None = None,
        start: int | None = None,
        listed: dict[str, Any] | None = None,
        local: dict[str, Any] | None = None,
    ) -> Self:
        """One entry. `packed` is the stored content as it is, `start` where the list says it begins."""
        if packed is None:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = deflate.compress(content) + deflate.flush() if method == 8 else content
        common = {
            "flags": flags,
            "method": method,
            "crc": zlib.crc32(content),
            "packed": len(packed),
            "size": len(content),
            "name": text(name),
            "extra": extra,
        }
        at = len(self.data) if start is None else start
        one, other = {**common, **(local or {})}, {**common, **(listed or {})}
        time, date = 0x6000, 0x5721
        if start is None:
            self.data += struct.pack(
                "<4s5H3L2H", b"PK\x03\x04", 20, one["flags"], one["method"], time, date, one["crc"],
                one["packed"], one["size"], len(one["name"]), len(one["extra"]),
            )  # fmt: skip
            self.data += one["name"] + one["extra"] + packed
        self.list += struct.pack(
            "<4s4B4H3L5H2L", b"PK\x01\x02", 30, host, 20, 0, other["flags"], other["method"], time, date,
            other["crc"], other["packed"], other["size"], len(other["name"]), len(other["extra"]),
            0, 0, 0, (mode << 16) & 0xFFFFFFFF, other.get("start", at),
        )  # fmt: skip
        self.list += other["name"] + other["extra"]
        self.count += 1
        return self

    def symlink(self, name: str | bytes, target: str | bytes) -> Self:
        """A symbolic link, as Info-ZIP stores it."""
        return self.file(name, text(target), mode=LINK, method=0)

    def end(self, comment: bytes = b"", *, count: int | None = None, gap: bytes = b"") -> bytes:
        """All of it, with its list and end."""
        number = self.count if count is None else count
        end = struct.pack(
            "<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(self.list), len(self.data), len(comment)
        )
        return bytes(self.data + self.list) + gap + end + comment


def zip64(archive: Zip, *, offset: int | None = None) -> bytes:
    """The archive with a zip64 end; `offset` replaces where its list is said to be."""
    count, start, size = archive.count, len(archive.data), len(archive.list)
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start if offset is None else offset
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return bytes(archive.data + archive.list) + end64 + locator + end


def _shelf() -> dict[str, Bad]:
    refused, broken = "ArchiveRefused", "ArchiveBroken"
    large, unsupported = "ArchiveTooLarge", "ArchiveUnsupported"
    good = Zip().file("f").end()
    quine = Zip().file("a", b"x" * 100, method=0)
    return {
        # paths and kinds
        "a path that leaves": Bad(Zip().file("../evil").end(), refused, "../evil"),
        "a path that leaves from below": Bad(Zip().file("a/../../evil").end(), refused, "evil"),
        "an absolute path": Bad(Zip().file("/evil").end(), refused, "/evil"),
        "a path of another system": Bad(Zip().file("..\\evil").end(), refused, "evil"),
        "a drive": Bad(Zip().file("C:\\evil").end(), refused),
        "an empty name": Bad(Zip().file("").end(), broken),
        "a name with a NUL": Bad(Zip().file("ok\0/../evil").end(), broken),
        "a name too long": Bad(Zip().file("n" * 256).end(), large, "nnn"),
        "a path too deep": Bad(Zip().file("/".join("d" * 65)).end(), large, "d/d"),
        "a path too long": Bad(Zip().file("/".join(["n" * 200] * 25)).end(), large),
        "a name that is not UTF-8": Bad(Zip().file(b"caf\xe9", flags=1 << 11).end(), broken),
        "a second name": Bad(
            Zip().file("ok", extra=struct.pack("<2HBL", 0x7075, 12, 1, 0) + b"../evil").end(), broken, "'ok'"
        ),
        "a link out": Bad(Zip().symlink("l", "../evil").end(), refused, "'l'"),
        "a link to an absolute path": Bad(Zip().symlink("l", "/etc/passwd").end(), refused, "'l'"),
        "a link without target": Bad(Zip().symlink("l", "").end(), refused),
        "a link with a long target": Bad(Zip().symlink("l", "x/" * 3000).end(), refused, "'l'"),
        "a file through a link": Bad(Zip().symlink("l", "..").file("l/evil").end(), refused, "l/evil"),
        "a file over a link": Bad(Zip().symlink("l", "../evil").file("l").end(), refused, "'l'"),
        "a file twice": Bad(Zip().file("f").file("f", b"other").end(), refused, "'f'"),
        "a file below a file": Bad(Zip().file("f").file("f/g").end(), refused, "f/g"),
        "set-user-id": Bad(Zip().file("su", mode=0o104755).end(), refused, "'su'"),
        "a device": Bad(Zip().file("null", b"", mode=0o020666).end(), refused, "'null'"),
        "a FIFO": Bad(Zip().file("fifo", b"", mode=0o010666).end(), refused, "'fifo'"),
        "a directory with a content": Bad(Zip().file("d/", b"x", mode=0o040755).end(), broken, "d/"),
        "a file that ends as a directory": Bad(Zip().file("d/", b"").end(), broken, "d/"),
        # two truths
        "another name in the entry": Bad(Zip().file("ok", local={"name": b"../evil"}).end(), broken, "'ok'"),
        "another method in the entry": Bad(Zip().file("f", local={"method": 0}).end(), broken, "'f'"),
        "another size in the entry": Bad(Zip().file("f", local={"size": 70}).end(), broken, "'f'"),
        "another checksum in the entry": Bad(Zip().file("f", local={"crc": 1}).end(), broken, "'f'"),
        "another size behind a descriptor": Bad(
            Zip().file("f", flags=8, local={"size": 70}).end(), broken, "'f'"
        ),
        "something before the archive": Bad(Zip(b"PK\x03\x04MZ").file("f").end(), broken),
        "something after the list": Bad(Zip().file("f").end(gap=b"evil"), broken),
        "something after the end": Bad(good + b"evil", broken),
        "two ends": Bad(Zip().file("f").end(comment=good[-22:-2] + b"\0\0"), broken),
        "no end": Bad(good[:-22], broken),
        "half an end": Bad(good[:-10], broken),
        "more entries than listed": Bad(Zip().file("f").end(count=2), broken),
        "fewer entries than listed": Bad(Zip().file("f").file("g").end(count=1), broken),
        "a list elsewhere by zip64": Bad(zip64(Zip().file("f"), offset=0), broken),
        "an entry outside": Bad(Zip().file("f", listed={"start": 10_000_000}).end(), broken),
        "an entry in the list": Bad(Zip().file("f", listed={"packed": 4000}).end(), broken),
        "a zip64 field that is missing": Bad(Zip().file("f", listed={"size": 0xFFFFFFFF}).end(), broken),
        "an extra field too long": Bad(Zip().file("f", extra=b"UT\xff\xff\0").end(), broken),
        "a list of garbage": Bad(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 0, 0, 0)[:18], broken),
        # contents
        "one content for two entries": Bad(
            Zip().file("a", method=0).file("b", start=0, local={}, listed={"name": b"a"}).end(), broken
        ),
        "entries that overlap": Bad(
            Zip()
            .file("a", bytes(quine.data), method=0)
            .file("a", b"x" * 100, method=0, start=31, listed={})
            .end(),
            refused,
        ),
        "a wrong checksum": Bad(
            Zip().file("f", listed={"crc": 7}, local={"crc": 7}).end(), broken, "'f'"
        ),
        "more content than announced": Bad(
            Zip().file("f", b"x" * 900, listed={"size": 90}, local={"size": 90}).end(), broken, "'f'"
        ),
        "less content than announced": Bad(
            Zip().file("f", listed={"size": 90}, local={"size": 90}).end(), broken, "'f'"
        ),
        "content that is no deflate": Bad(Zip().file("f", packed=b"\xff" * 50).end(), broken, "'f'"),
        "content cut short": Bad(Zip().file("f", b"x" * 100, packed=b"\x4b").end(), broken, "'f'"),
        "content with more behind it": Bad(
            Zip().file("f", b"", packed=b"\x03\x00" + b"garbage").end(), broken, "'f'"
        ),
        "an announced bomb": Bad(Zip().file("b", listed={"size": 1 << 31}, local={"size": 1 << 31}).end(),
                                 large, "'b'"),
        # not for us
        "an encrypted entry": Bad(Zip().file("f", flags=1).end(), unsupported, "'f'"),
        "LZMA": Bad(Zip().file("f", method=14).end(), unsupported, "'f'"),
        "an archive of nothing": Bad(Zip().end() + bytes(0), "ArchiveEmpty"),
        "an archive in parts": Bad(good[:-18] + b"\1\0" + good[-16:], unsupported),
    }  # fmt: skip


BAD_ZIPS = _shelf()
