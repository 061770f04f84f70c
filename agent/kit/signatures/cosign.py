"""What `cosign` signs with a key: images by a small document about their digest, files by their own.

Public keys are PEM ("BEGIN PUBLIC KEY"): ECDSA on P-256 (what `cosign generate-key-pair` makes), RSA, and
for images Ed25519. No certificates, no transparency log: the key is what is trusted.

An image's document is of the form "simple signing" (cosign 1 and 2, skopeo; see sigstore/cosign's
SIGNATURE_SPEC.md), or an in-toto statement in a DSSE envelope in a sigstore bundle (cosign 3). Only the type
of statement that is a signature counts: the same key may have attested all sorts of things of an image. A
file's signature is base64, or stands in a bundle, of cosign's old form or of sigstore's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from agent.kit.signatures.refused import KeyInvalid, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    _Key: TypeAlias = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey

HEAD = "-----BEGIN PUBLIC KEY-----"
DOCUMENT_MAX = 64 << 10  # bytes of what is signed for an image
BUNDLE_MAX = 64 << 10
TYPES = ("cosign container image signature", "atomic container signature")
STATEMENT = "https://sigstore.dev/cosign/sign/v1"
_IN_TOTO = "application/vnd.in-toto+json"
_MOST = 16  # signatures of one envelope, subjects of one statement
_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----[\sA-Za-z0-9+/=]*-----END PUBLIC KEY-----")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key (DER, SubjectPublicKeyInfo)."""

    der: bytes

    @property
    def name(self) -> str:
        """Its fingerprint."""
        return f"SHA256:{hashlib.sha256(self.der).hexdigest()}"


class _Image(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct, frozen=True):
    type: str
    image: _Image


class _Document(msgspec.Struct, frozen=True):
    critical: _Critical


class _Made(msgspec.Struct, frozen=True):
    sig: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Made]


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    predicate_type: str
    subject: list[_Subject]


class _Message(msgspec.Struct, frozen=True):
    signature: str = ""


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    base64_signature: str = msgspec.field(name="base64Signature", default="")
    message_signature: _Message = _Message()
    dsse_envelope: _Envelope | None = None


def parse_keys(text: str) -> tuple[PublicKey, ...]:
    """Public keys in PEM, one after the other. Blocks. Raises KeyInvalid."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    found = []
    blocks = _BLOCK.findall(text)
    if not blocks or text.count(HEAD) != len(blocks):
        raise KeyInvalid(f"there is no whole key in it, from {HEAD} to its end")
    for block in blocks:
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyInvalid("there is a key in it that cannot be read") from None
        known = (
            (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1))
            or (isinstance(key, RSAPublicKey) and key.key_size >= 2048)
            or isinstance(key, Ed25519PublicKey)
        )
        if not known:
            raise KeyInvalid("a key is ECDSA on P-256, RSA of 2048 bits or more, or Ed25519; this is none")
        found.append(PublicKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))
    return tuple(found)


def verify_file(signature: bytes, keys: Sequence[PublicKey], digest: bytes) -> PublicKey:
    """The key that signed the file of this sha256. Blocks. Raises Refused."""
    made = _of_file(signature)
    for key in keys:
        if _is_right(key, made, digest, None):
            return key
    raise Refused("the signature is wrong, or none of the keys made it")


def verify_image(document: bytes, signature: str, keys: Sequence[PublicKey], digest: str) -> PublicKey:
    """The key that signed `document`, which speaks of the manifest of this digest. Blocks. Raises Refused.

    Args:
        document: the JSON that was signed.
        signature: base64, from the annotation beside it.
        digest: "sha256:HEX".
    """
    if len(document) > DOCUMENT_MAX:
        raise Refused(f"what is signed exceeds {DOCUMENT_MAX} bytes")
    made = _decoded(signature.encode())
    hashed = hashlib.sha256(document).digest()
    good = next((key for key in keys if _is_right(key, made, hashed, document)), None)
    if good is None:
        raise Refused("the signature is wrong, or none of the keys made it")
    try:
        said = msgspec.json.decode(document, type=_Document).critical
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("what is signed is no document about an image", good.name) from None
    if said.type not in TYPES:
        raise Refused("what is signed is no document about an image", good.name)
    if said.image.digest != digest:
        raise Refused(f"the signature is for another image, {said.image.digest[:80]!r}", good.name)
    return good


def verify_bundle(data: bytes, keys: Sequence[PublicKey], digest: str) -> PublicKey:
    """The key that signed a bundle's statement about the manifest of this digest. As `verify_image`."""
    envelope = _bundle(data).dsse_envelope
    if envelope is None or not 0 < len(envelope.signatures) <= _MOST:
        raise Refused("the bundle has no signature of an image")
    payload = _decoded(envelope.payload.encode(), DOCUMENT_MAX)
    kind = envelope.payload_type.encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    hashed = hashlib.sha256(signed).digest()
    made = [_decoded(one.sig.encode()) for one in envelope.signatures]
    good = next((key for key in keys for one in made if _is_right(key, one, hashed, signed)), None)
    if good is None:
        raise Refused("the signature is wrong, or none of the keys made it")
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("what is signed is no statement", good.name) from None
    if envelope.payload_type != _IN_TOTO or statement.predicate_type != STATEMENT:
        raise Refused("what is signed is another statement about an image", good.name)
    algorithm, _, expected = digest.partition(":")
    if not any(one.digest.get(algorithm) == expected for one in statement.subject[:_MOST]):
        raise Refused("the signature is for another image", good.name)
    return good


def _bundle(data: bytes) -> _Bundle:
    if len(data) > BUNDLE_MAX:
        raise Refused(f"the signature exceeds {BUNDLE_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("the signature is no bundle of cosign") from None


def _of_file(data: bytes) -> bytes:
    if len(data) > BUNDLE_MAX:
        raise Refused(f"the signature exceeds {BUNDLE_MAX} bytes")
    text = data.strip()
    if not text.startswith(b"{"):
        return _decoded(text)
    bundle = _bundle(text)
    if bool(bundle.base64_signature) == bool(bundle.message_signature.signature):
        raise Refused("the bundle has no signature of a file, or two")
    return _decoded((bundle.base64_signature or bundle.message_signature.signature).encode())


def _decoded(text: bytes, most: int = 2048) -> bytes:
    try:
        made = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise Refused("the signature is not base64") from None
    if not 0 < len(made) <= most:
        raise Refused("the signature is empty, or too long")
    return made


def _is_right(key: PublicKey, made: bytes, digest: bytes, content: bytes | None) -> bool:
    """Whether `key` signed this; Ed25519 signs the content itself, which is not at hand for files."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public = load_der_public_key(key.der)
    hashed = Prehashed(SHA256())
    try:
        if isinstance(public, EllipticCurvePublicKey):
            public.verify(made, digest, ECDSA(hashed))
        elif isinstance(public, RSAPublicKey):
            public.verify(made, digest, PKCS1v15(), hashed)
        elif isinstance(public, Ed25519PublicKey) and content is not None:
            public.verify(made, content)
        else:
            return False
    except InvalidSignature:
        return False
    return True
