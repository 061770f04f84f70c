"""What of a commit or tag is signed, and the signature: gitformat-signature(5), without input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass

OPENPGP_HEADS = (b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP MESSAGE-----")
SIGNATURE_MAX = 64 << 10
# A commit carries its signature in a header named after the hash of the repository's ids.
_HEADER = {"sha1": b"gpgsig", "sha256": b"gpgsig-sha256"}
_TAG_SIGNATURE = re.compile(
    rb"^-----BEGIN (?:SSH SIGNATURE|PGP SIGNATURE|PGP MESSAGE|SIGNED MESSAGE)-----$", re.M
)


class NotSigned(Exception):
    """There is no signature, or none that can be read; the text says so."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed, the armored signature, and when the signer says it was made (seconds, 0 unknown)."""

    payload: bytes
    signature: bytes
    time: int


def of_commit(content: bytes, object_format: str) -> Signed:
    """The signed parts of a commit: all of it without its signature headers. Raises NotSigned."""
    head, blank, message = content.partition(b"\n\n")
    kept: list[bytes] = []
    signatures: dict[bytes, list[bytes]] = {}
    into: list[bytes] = kept
    for line in head.split(b"\n"):
        if line.startswith(b" "):  # continues the header before
            into.append(line if into is kept else line[1:])
            continue
        name, _, value = line.partition(b" ")
        if name not in _HEADER.values():
            into = kept
            kept.append(line)
        elif name in signatures:
            raise NotSigned("it has two signatures")
        else:
            into = signatures[name] = [value]
    found = signatures.get(_HEADER[object_format])
    if found is None:
        raise NotSigned("it is not signed")
    return _bounded(b"\n".join(kept) + blank + message, b"\n".join(found) + b"\n", kept, b"committer ")


def of_tag(content: bytes) -> Signed:
    """The signed parts of an annotated tag: all before the signature at its end. Raises NotSigned."""
    starts = [match.start() for match in _TAG_SIGNATURE.finditer(content)]
    if not starts:
        raise NotSigned("it is not signed")
    payload = content[: starts[-1]]
    return _bounded(payload, content[starts[-1] :], payload.partition(b"\n\n")[0].split(b"\n"), b"tagger ")


def tag_headers(content: bytes) -> dict[str, str]:
    """The headers of a tag (object, type, tag, tagger), the first of each."""
    found: dict[str, str] = {}
    for line in content.partition(b"\n\n")[0].decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(" ")
        found.setdefault(name, value)
    return found


def _bounded(payload: bytes, signature: bytes, headers: list[bytes], person: bytes) -> Signed:
    if len(signature) > SIGNATURE_MAX:
        raise NotSigned(f"its signature exceeds {SIGNATURE_MAX} bytes")
    line = next((line for line in headers if line.startswith(person)), b"")
    words = line.rpartition(b">")[2].split()
    time = int(words[0]) if words and words[0].isdigit() and len(words[0]) < 16 else 0
    return Signed(payload, signature, time)
