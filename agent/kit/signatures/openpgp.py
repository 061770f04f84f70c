"""OpenPGP signatures (RFC 9580), by Sequoia: an extra, `pip install emptybox[openpgp]`.

Sequoia's standard policy applies: what is expired or revoked now, or made with broken algorithms, does
not count.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kit.signatures.refused import KeyInvalid, Refused


@dataclass(frozen=True, slots=True)
class Keyring:
    """Certificates (public keys) by fingerprint, in lower case hexadecimal."""

    certificates: dict[str, Any]


def is_there() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pysequoia") is not None


def read(data: bytes) -> Keyring:
    """Certificates, armored or not, as `gpg --export` writes them. Blocks. Raises KeyInvalid."""
    import pysequoia

    try:
        found = {c.fingerprint: c for c in pysequoia.Cert.split_bytes(data)}
    except RuntimeError as error:
        raise KeyInvalid(_words(error)) from None
    if not found:
        raise KeyInvalid("there is no certificate in it")
    return Keyring(found)


def verify(content: bytes | Path, signature_bytes: bytes, ring: Keyring) -> tuple[str, str]:
    """Name and fingerprint of the certificate that signed the content, or file. Blocks. Raises Refused."""
    import pysequoia

    try:
        signature = pysequoia.Sig.from_bytes(signature_bytes)
    except RuntimeError as error:
        raise Refused(f"the signature cannot be read: {_words(error)}") from None
    key = (signature.issuer_fingerprint or signature.issuer_key_id or "").upper()
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
