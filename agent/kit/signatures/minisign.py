"""Minisign: Ed25519 over the BLAKE2b-512 digest of a file, and a trusted comment signed along with it.

    untrusted comment: TEXT
    base64("ED", id of the key (8), signature of the digest (64))
    trusted comment: TEXT
    base64(signature of that signature and the trusted comment (64))

The legacy kind ("Ed", minisign before 0.8 or with -l) signs the file itself, which would have to be in memory
whole; it is refused, and so is whatever stands behind the fourth line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from agent.kit.signatures.refused import KeyInvalid, Refused

PREFIX = "RW"  # what every public key begins with, in base64
SIGNATURE_MAX = 4 << 10  # bytes; comments are short
_UNTRUSTED, _TRUSTED = b"untrusted comment: ", b"trusted comment: "
_KEY, _HASHED, _LEGACY = b"Ed", b"ED", b"Ed"
_SCRYPT, _OPEN, _BLAKE = b"Sc", b"\0\0", b"B2"
_MEMORY_MAX = (1 << 31) - 1  # bytes for opening an encrypted key; minisign takes 1 GiB


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key and its id (8 bytes, little-endian)."""

    id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The id as minisign shows it."""
        return f"{int.from_bytes(self.id, 'little'):X}"

    def __str__(self) -> str:
        return base64.b64encode(_KEY + self.id + self.key).decode()


@dataclass(frozen=True, slots=True)
class SecretKey:
    """What signs: the seed of an Ed25519 key."""

    public: PublicKey
    seed: bytes


def parse_keys(text: str) -> tuple[PublicKey, ...]:
    """Public keys, one a line, as `minisign -G` writes them; comments are passed over. Raises KeyInvalid."""
    found = []
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith(("#", "untrusted comment:")):
            raw = _decoded(line.encode(), 42, KeyInvalid("this is no public key of minisign"))
            if raw[:2] != _KEY:
                raise KeyInvalid("this is no public key of minisign")
            found.append(PublicKey(raw[2:10], raw[10:]))
    if not found:
        raise KeyInvalid("there is no key in it")
    return tuple(found)


def verify(signature: bytes, keys: Sequence[PublicKey], digest: bytes) -> tuple[PublicKey, str]:
    """The key that made the signature, and its trusted comment. Blocks. Raises Refused.

    Args:
        signature: the whole file.
        digest: BLAKE2b-512 of what is signed.
    """
    made, comment, whole = _read(signature)
    name = PublicKey(made[2:10], b"").name
    if made[:2] == _LEGACY:
        raise Refused("it is of minisign's legacy kind; sign it again with minisign 0.10 or later", name)
    if made[:2] != _HASHED:
        raise Refused("the signature is not one of minisign", name)
    candidates = [key for key in keys if hmac.compare_digest(key.id, made[2:10])]
    if not candidates:
        raise Refused("none of the keys made the signature", name)
    good = next((key for key in candidates if _is_right(key.key, made[10:], digest)), None)
    if good is None:
        raise Refused("the signature is wrong: the content is not what was signed", name)
    if not _is_right(good.key, whole, made[10:] + comment):
        raise Refused("the trusted comment of the signature was changed", name)
    return good, comment.decode("utf-8", "replace")


def load(data: bytes, password: str | None = None) -> SecretKey:
    """A secret key, as `minisign -G` writes it (open, with -W, or encrypted). Blocks. Raises KeyInvalid."""
    lines = data.strip().split(b"\n")
    raw = _decoded(lines[-1].strip(), 158, KeyInvalid("this is no secret key of minisign"))
    kind, how, checked, salt = raw[:2], raw[2:4], raw[4:6], raw[6:38]
    inner = raw[54:]
    if kind != _KEY or checked != _BLAKE or how not in (_SCRYPT, _OPEN):
        raise KeyInvalid("this is no secret key of minisign")
    if how == _SCRYPT:
        if password is None:
            raise KeyInvalid("the secret key is encrypted, and no password is given")
        stream = _stream(password, salt, *(int.from_bytes(raw[n : n + 8], "little") for n in (38, 46)))
        inner = bytes(a ^ b for a, b in zip(inner, stream, strict=True))
    number, seed, public, check = inner[:8], inner[8:40], inner[40:72], inner[72:]
    expected = hashlib.blake2b(kind + number + seed + public, digest_size=32).digest()
    if any(check) and not hmac.compare_digest(check, expected):  # without a password it may be left out
        raise KeyInvalid("the password is wrong, or the secret key is damaged")
    return SecretKey(PublicKey(number, public), seed)


def sign(digest: bytes, secret: SecretKey, comment: str) -> bytes:
    """A signature file, as `minisign -S` makes it. Blocks. ValueError for a comment of several lines.

    Args:
        digest: BLAKE2b-512 of what is signed.
        comment: the trusted comment.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not comment.replace("\t", "").isprintable():
        raise ValueError("a trusted comment is one line")
    private, said = Ed25519PrivateKey.from_private_bytes(secret.seed), comment.encode()
    made = private.sign(digest)
    first = base64.b64encode(_HASHED + secret.public.id + made)
    last = base64.b64encode(private.sign(made + said))
    return b"\n".join((_UNTRUSTED + b"signature of emptybox", first, _TRUSTED + said, last, b""))


def _read(data: bytes) -> tuple[bytes, bytes, bytes]:
    """(kind, key's id and signature; the trusted comment; the signature of both)."""
    if len(data) > SIGNATURE_MAX:
        raise Refused(f"the signature exceeds {SIGNATURE_MAX} bytes")
    lines = data.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise Refused("the signature is not one of minisign, with its four lines")
    malformed = Refused("the signature is cut off, or not base64")
    made, whole = _decoded(lines[1], 74, malformed), _decoded(lines[3], 64, malformed)
    return made, lines[2].removeprefix(_TRUSTED), whole


def _decoded(text: bytes, length: int, problem: Exception) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise problem from None
    if len(raw) != length:
        raise problem
    return raw


def _is_right(key: bytes, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _stream(password: str, salt: bytes, operations: int, memory: int) -> bytes:
    """What an encrypted key is mixed with: scrypt, its costs chosen as libsodium does."""
    operations = max(operations, 32768)
    if operations < memory // 32:
        log2, p = ((operations // 32).bit_length() - 1), 1
    else:
        log2 = (memory // 1024).bit_length() - 1
        p = min(operations // 4 >> log2, 0x3FFFFFFF) // 8
    if not 1 <= log2 < 63 or 128 * 8 << log2 > _MEMORY_MAX or p < 1:
        raise KeyInvalid("opening the secret key would take too much memory")
    try:
        return hashlib.scrypt(
            password.encode(), salt=salt, n=1 << log2, r=8, p=p, maxmem=_MEMORY_MAX, dklen=104
        )
    except (ValueError, MemoryError):
        raise KeyInvalid("there is not enough memory to open the secret key") from None
