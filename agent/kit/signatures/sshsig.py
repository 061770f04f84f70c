"""SSH signatures (OpenSSH's PROTOCOL.sshsig); the arithmetic is asyncssh's.

Its own `validate_sshsig` is handed one key that was already found allowed: which namespaces and times
count is decided by `signers`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence

from agent.kit.signatures.refused import KeyInvalid, Refused
from agent.kit.signatures.signers import AllowedKey

HEAD = b"-----BEGIN SSH SIGNATURE-----"
HASHES = ("sha256", "sha512")

_MAGIC = b"SSHSIG"
_TAIL = b"-----END SSH SIGNATURE-----"
_RSA_SIGNATURES = (b"rsa-sha2-256", b"rsa-sha2-512")


def fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def verify(
    signature: bytes, namespace: str, at: float, allowed: Sequence[AllowedKey], digest: Callable[[str], bytes]
) -> AllowedKey:
    """The allowed key that made the armored signature. Blocks. Raises Refused.

    Args:
        namespace: what it must have been made for.
        at: when it counts as made, in seconds since the epoch; the format itself does not tell.
        digest: gives the digest of what was signed, by one of HASHES.
    """
    raw = _dearmor(signature)
    blob, hashed = _check_form(raw, namespace)
    name = fingerprint(blob)
    candidates = [key for key in allowed if key.blob == blob]
    if not candidates:
        raise Refused("its key is not among the allowed signers", name)
    objections = [key.objection(at, namespace) for key in candidates]
    good = next((key for key, objection in zip(candidates, objections, strict=True) if not objection), None)
    if good is None:
        raise Refused(objections[0], name)
    if not _is_right(raw, blob, digest(hashed)):
        raise Refused("the signature is wrong: the content is not what was signed", name)
    return good


def sign(digest: bytes, key: bytes, *, password: str | None = None, namespace: str = "file") -> bytes:
    """An armored signature, as `ssh-keygen -Y sign` makes it. Blocks. Raises KeyInvalid.

    Args:
        digest: sha512 of what is signed.
        key: a private key, as ssh-keygen writes it; `password` opens an encrypted one.
    """
    import asyncssh

    try:
        private = asyncssh.import_private_key(key, password)
    except (ValueError, asyncssh.Error) as error:  # its texts tell what is wrong, never what stands there
        raise KeyInvalid(str(error)[:200]) from None
    return asyncssh.create_sshsig(private, digest, is_hashed=True, hash_name="sha512", namespace=namespace)


def _is_right(raw: bytes, blob: bytes, digest: bytes) -> bool:
    import asyncssh

    kind = _Reader(blob).string().decode("ascii", "replace")
    line = b"* " + kind.encode() + b" " + base64.b64encode(blob)
    try:
        return asyncssh.validate_sshsig(digest, raw, "signer", line, is_hashed=True)
    except (ValueError, asyncssh.Error):  # a key or a hash that it cannot handle
        return False


def _check_form(raw: bytes, namespace: str) -> tuple[bytes, str]:
    """The public key and the hash of a signature made for this with algorithms that are not broken."""
    reader = _Reader(raw)
    if reader.take(len(_MAGIC)) != _MAGIC or reader.take(4) != b"\0\0\0\1":
        raise Refused("the signature is not one of SSH")
    blob, made_for, _reserved, hashed, signature = (reader.string() for _ in range(5))
    if reader.rest:
        raise Refused("the signature goes on after its end")
    if made_for != namespace.encode():
        raise Refused(f"the signature was not made for {namespace!r} (its namespace)", fingerprint(blob))
    if hashed not in [name.encode() for name in HASHES]:
        raise Refused("the signature uses an unknown hash", fingerprint(blob))
    kind, made_by = _Reader(blob).string(), _Reader(signature).string()
    if b"-cert-v0" in kind:
        raise Refused("the signature was made with a certificate, which is not supported")
    if kind == b"ssh-rsa" and made_by not in _RSA_SIGNATURES:
        raise Refused("the signature uses SHA-1", fingerprint(blob))
    return blob, hashed.decode()


def _dearmor(text: bytes) -> bytes:
    lines = text.strip().split(b"\n")
    if lines[0].strip() != HEAD or lines[-1].strip() != _TAIL:
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
