"""Digests: their algorithms, and the files that list them (sha256sum(1), openssl dgst, BSD's sha256(1)).

A line is `HEX  NAME`, `HEX *NAME`, `ALGORITHM (NAME) = HEX`, or the file holds one lone digest. Lines of
other algorithms, comments and signatures around them are passed over.
"""

from __future__ import annotations

import re

from agent.artifact.source import path_of, shown
from agent.domain.errors import Permanent

LENGTHS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}  # hex digits; the last two where allowed

_GNU = re.compile(r"([0-9A-Fa-f]{16,256})(?: [ *?]|[ \t]+[*?]?)(\S.*)\Z")
_BSD = re.compile(r"([A-Za-z0-9-]{2,16}) ?\((.+)\) ?= ?([0-9A-Fa-f]{16,256})\Z")
_LONE = re.compile(r"[0-9A-Fa-f]{16,256}\Z")


def find(listing: bytes, algorithm: str, artifact: str, where: str) -> str:
    """The digest that a checksum file gives for the artifact of URL `artifact`, as lower-case hex.

    The line whose path agrees with most of the URL's path from its end counts; failing that, one of the
    same base name. Raises Permanent: ChecksumMissing, or ChecksumAmbiguous when lines that count equally
    give different digests.

    Args:
        listing: the file's bytes; what is not UTF-8 in it is passed over.
        algorithm: one of LENGTHS.
        artifact: the artifact's URL.
        where: the checksum file's URL, for errors.
    """
    wanted = [p for p in path_of(artifact).split("/") if p]
    lines = [line.strip() for line in listing.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and _LONE.match(lines[0]) and len(lines[0]) == LENGTHS[algorithm]:
        return lines[0].lower()
    best, found = 0, set[str]()
    for line in lines:
        name, digest = _parse(line, algorithm)
        rank = _agreement(name, wanted) if digest else 0
        if rank > best:
            best, found = rank, {digest}
        elif rank and rank == best:
            found.add(digest)
    name = wanted[-1] if wanted else shown(artifact)
    if not found:
        raise Permanent(
            "ChecksumMissing",
            f"the checksum file has no {algorithm} line for {name}",
            where=where,
            remedy="list it, or write the digest itself",
        )
    if len(found) > 1:
        raise Permanent("ChecksumAmbiguous", f"the checksum file has several lines for {name}", where=where)
    return found.pop()


def _parse(line: str, algorithm: str) -> tuple[str, str]:
    """(name, digest) of a line, ("", "") when it is none of this algorithm."""
    match = _BSD.match(line)
    if match:
        kind, name, digest = match[1].lower().replace("sha2-", "sha"), match[2], match[3]
        if kind != algorithm:
            return "", ""
    else:
        match = _GNU.match(line)
        if match is None:
            return "", ""
        digest, name = match[1], match[2]
    return (name, digest.lower()) if len(digest) == LENGTHS[algorithm] else ("", "")


def _agreement(name: str, wanted: list[str]) -> int:
    """How well a listed name fits: 0 not at all, 1 by base name, more by as many components from the end."""
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if not parts or not wanted or parts[-1] != wanted[-1]:
        return 0
    if parts == wanted[-len(parts) :]:
        return 1 + len(parts)
    return 1
