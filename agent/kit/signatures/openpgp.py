"""OpenPGP signatures (RFC 9580), by Sequoia: an extra, `pip install emptybox[openpgp]`.

Sequoia's standard policy applies: what is expired or revoked now, or made with broken algorithms, does
not count.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kit.signatures.refused import KeyInvalid, Refused

SIGNATURES_MAX = 8  # in one file, each of which reads what is signed


class NotInstalled(Exception):
    """The extra is not there."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Certificates (public keys) by fingerprint, in lower case hexadecimal."""

    certificates: dict[str, Any]

    def counts(self, fingerprint: str) -> bool:
        """Whether the certificate is there, and neither revoked nor expired."""
        found = self.certificates.get(fingerprint.lower())
        if found is None or found.is_revoked:
            return False
        return found.expiration is None or found.expiration.timestamp() > time.time()


def is_there() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pysequoia") is not None


def read(data: bytes) -> Keyring:
    """Certificates, as `gpg --export` writes them, armored or not. Blocks.

    Raises KeyInvalid, NotInstalled.
    """
    if not is_there():
        raise NotInstalled
    import pysequoia

    try:
        found = {c.fingerprint: c for c in pysequoia.Cert.split_bytes(data)}
    except RuntimeError as error:
        raise KeyInvalid(_words(error)) from None
    if not found:
        raise KeyInvalid("there is no certificate in it")
    return Keyring(found)


def verify(content: bytes | Path, signature_bytes: bytes, ring: Keyring) -> tuple[str, str]:
    """Name and fingerprint of the certificate that signed the content, or file. Blocks. Raises Refused.

    For a file only signatures of its very bytes count: one made in text mode would bear other line ends.
    """
    refused = Refused("there is no signature in it")
    for one in _signatures(signature_bytes):
        try:
            return _verify(content, one, ring)
        except Refused as problem:
            refused = problem
    raise refused


def _signatures(data: bytes) -> list[Any]:
    """The signatures of one text: nothing else, and not too many. Raises Refused."""
    import pysequoia
    from pysequoia.packet import PacketPile, Tag

    try:
        packets = list(PacketPile.from_bytes(data))
        if len(packets) > SIGNATURES_MAX:
            raise Refused(f"more than {SIGNATURES_MAX} signatures in one file")
        if any(packet.tag != Tag.Signature for packet in packets):
            raise Refused("there is something else than signatures in it")
        return [pysequoia.Sig.from_bytes(bytes(packet)) for packet in packets]
    except RuntimeError as error:
        raise Refused(f"the signature cannot be read: {_words(error)}") from None


def _verify(content: bytes | Path, signature: Any, ring: Keyring) -> tuple[str, str]:
    import pysequoia
    from pysequoia.packet import SignatureType

    try:
        of_bytes = signature.signature_type == SignatureType.Binary
        key = (signature.issuer_fingerprint or signature.issuer_key_id or "").upper()
    except RuntimeError as error:  # of a kind it does not know
        raise Refused(f"the signature cannot be read: {_words(error)}") from None
    if isinstance(content, Path) and not of_bytes:
        raise Refused("the signature is not one of a file's bytes (gpg --detach-sign makes such)")
    try:
        verdict = pysequoia.verify(
            bytes=content if isinstance(content, bytes) else None,
            file=content if isinstance(content, Path) else None,
            store=lambda _: list(ring.certificates.values()),
            signature=signature,
        )
    except RuntimeError:
        raise Refused("the signature is wrong, or none of the keys made it", key) from None
    made_by = next((ring.certificates.get(s.certificate) for s in verdict.valid_sigs), None)
    if made_by is None:
        raise Refused("none of the keys made the signature", key)
    names = [str(user) for user in made_by.user_ids]
    return names[0] if names else "", made_by.fingerprint.upper()


def _words(error: RuntimeError) -> str:
    return str(error).partition("\n")[0][:200]
