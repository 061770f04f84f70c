"""SSH signatures (OpenSSH's PROTOCOL.sshsig) over Git objects; the arithmetic is asyncssh's.

Its own `validate_sshsig` is handed one key that was already found allowed: which namespaces and times
count is decided by `signers`, at the time the commit names, as Git does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

from agent.source.trust.signed import Signed
from agent.source.trust.signers import NAMESPACE, AllowedKey

_MAGIC = b"SSHSIG"
_HEAD, _TAIL = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_HASHES = (b"sha256", b"sha512")
_RSA_SIGNATURES = (b"rsa-sha2-256", b"rsa-sha2-512")


class Refused(Exception):
    """The signature does not count; the text says why, `key` is the fingerprint or ""."""

    def __init__(self, words: str, key: str = "") -> None:
        super().__init__(words)
        self.key = key


def fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def verify(signed: Signed, allowed: Sequence[AllowedKey]) -> AllowedKey:
    """The allowed key that made the signature. Blocks. Raises Refused."""
    raw = _dearmor(signed.signature)
    blob = _check_form(raw)
    name = fingerprint(blob)
    candidates = [key for key in allowed if key.blob == blob]
    if not candidates:
        raise Refused("its key is not among the allowed signers", name)
    objections = [key.objection(signed.time) for key in candidates]
    good = next((key for key, objection in zip(candidates, objections, strict=True) if not objection), None)
    if good is None:
        raise Refused(objections[0], name)
    if not _is_right(raw, blob, signed.payload):
        raise Refused("the signature is wrong: the content is not what was signed", name)
    return good


def _is_right(raw: bytes, blob: bytes, payload: bytes) -> bool:
    import asyncssh

    kind = _Reader(blob).string().decode("ascii", "replace")
    line = b"* " + kind.encode() + b" " + base64.b64encode(blob)
    try:
        return asyncssh.validate_sshsig(payload, raw, "signer", line)
    except (ValueError, asyncssh.Error):  # a key or a hash that it cannot handle
        return False


def _check_form(raw: bytes) -> bytes:
    """The public key of a signature made for Git with algorithms that are not broken."""
    reader = _Reader(raw)
    if reader.take(len(_MAGIC)) != _MAGIC or reader.take(4) != b"\0\0\0\1":
        raise Refused("the signature is not one of SSH")
    blob, namespace, _reserved, hashed, signature = (reader.string() for _ in range(5))
    if reader.rest:
        raise Refused("the signature goes on after its end")
    if namespace != NAMESPACE.encode():
        raise Refused("the signature was not made for Git (its namespace)", fingerprint(blob))
    if hashed not in _HASHES:
        raise Refused("the signature uses an unknown hash", fingerprint(blob))
    kind, made_by = _Reader(blob).string(), _Reader(signature).string()
    if b"-cert-v0" in kind:
        raise Refused("the signature was made with a certificate, which is not supported")
    if kind == b"ssh-rsa" and made_by not in _RSA_SIGNATURES:
        raise Refused("the signature uses SHA-1", fingerprint(blob))
    return blob


def _dearmor(text: bytes) -> bytes:
    lines = text.strip().split(b"\n")
    if lines[0].strip() != _HEAD or lines[-1].strip() != _TAIL:
        raise Refused("the signature is cut off")
    try:
        return base64.b64decode(b"".join(line.strip() for line in lines[1:-1]), validate=True)
    except binascii.Error:
        raise Refused("the signature is not base64") from None


class _Reader:
    """Strings as SSH writes them (RFC 4251, section 5)."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise Refused("the signature is cut off")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))
