"""OpenPGP signatures (RFC 9580) over Git objects, by Sequoia: an extra, `pip install emptybox[openpgp]`.

Sequoia's standard policy applies: what is expired or revoked now, or made with broken algorithms, does
not count.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from agent.source.trust.signed import Signed
from agent.source.trust.sshsig import Refused


@dataclass(frozen=True, slots=True)
class Keyring:
    """Certificates (public keys) by fingerprint, in lower case hexadecimal."""

    certificates: dict[str, Any]


class KeyringInvalid(ValueError):
    """The file holds no certificates that can be read."""


def is_there() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pysequoia") is not None


def read(data: bytes) -> Keyring:
    """Certificates, armored or not, as `gpg --export` writes them. Blocks. Raises KeyringInvalid."""
    import pysequoia

    try:
        found = {c.fingerprint: c for c in pysequoia.Cert.split_bytes(data)}
    except RuntimeError as error:
        raise KeyringInvalid(_words(error)) from None
    if not found:
        raise KeyringInvalid("there is no certificate in it")
    return Keyring(found)


def verify(signed: Signed, ring: Keyring) -> tuple[str, str]:
    """Name and fingerprint of the certificate that made the signature. Blocks. Raises Refused."""
    import pysequoia

    try:
        signature = pysequoia.Sig.from_bytes(signed.signature)
    except RuntimeError as error:
        raise Refused(f"the signature cannot be read: {_words(error)}") from None
    key = (signature.issuer_fingerprint or signature.issuer_key_id or "").upper()
    try:
        verdict = pysequoia.verify(
            bytes=signed.payload, store=lambda _: list(ring.certificates.values()), signature=signature
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
