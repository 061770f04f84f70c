"""Keys and signatures in cosign's formats, made with the cryptography library; no package has cosign itself.

`encrypted` writes a private key as `cosign generate-key-pair` does (scrypt, NaCl's secretbox), so that
skopeo signs images with it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import poly1305
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"


class CosignKey:
    """A new key: `kind` is ecdsa, rsa or ed25519."""

    def __init__(self, kind: str = "ecdsa") -> None:
        self._private: Any
        if kind == "ecdsa":
            self._private = ec.generate_private_key(ec.SECP256R1())
        elif kind == "rsa":
            self._private = rsa.generate_private_key(65537, 2048)
        else:
            self._private = ed25519.Ed25519PrivateKey.generate()

    @property
    def public(self) -> str:
        """PEM."""
        key = self._private.public_key()
        return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())

    def raw(self, payload: bytes) -> bytes:
        """A signature of these bytes."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(payload, ec.ECDSA(SHA256()))
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(payload, padding.PKCS1v15(), SHA256())
        return bytes(self._private.sign(payload))

    def sign(self, payload: bytes) -> bytes:
        """What `cosign sign-blob` prints."""
        return base64.b64encode(self.raw(payload)) + b"\n"

    def bundle(self, payload: bytes) -> bytes:
        """What `cosign sign-blob --bundle` writes (cosign 3)."""
        digest = base64.b64encode(hashlib.sha256(payload).digest()).decode()
        return json.dumps(
            {
                "mediaType": BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": "x"}},
                "messageSignature": {
                    "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
                    "signature": base64.b64encode(self.raw(payload)).decode(),
                },
            }
        ).encode()

    def document(self, digest: str, *, kind: str = "cosign container image signature") -> tuple[bytes, str]:
        """What cosign 2 signs for an image, and the signature of it."""
        image = {"docker-manifest-digest": digest}
        critical = {"identity": {"docker-reference": ""}, "image": image, "type": kind}
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        return payload, base64.b64encode(self.raw(payload)).decode()

    def statement(self, digest: str, *, kind: str = "https://sigstore.dev/cosign/sign/v1") -> bytes:
        """The bundle that cosign 3 attaches to an image."""
        algorithm, _, hexadecimal = digest.partition(":")
        payload = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"digest": {algorithm: hexadecimal}}],
                "predicateType": kind,
                "predicate": {},
            }
        ).encode()
        what = b"application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(what), what, len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": what.decode(),
            "signatures": [{"sig": base64.b64encode(self.raw(signed)).decode()}],
        }
        return json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope}).encode()

    def encrypted(self, path: Path, password: bytes) -> None:
        """Write the private key as cosign does."""
        der = self._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        salt, nonce = os.urandom(32), os.urandom(24)
        key = hashlib.scrypt(password, salt=salt, n=32768, r=8, p=1, maxmem=1 << 26, dklen=32)
        document = {
            "kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": _text(salt)},
            "cipher": {"name": "nacl/secretbox", "nonce": _text(nonce)},
            "ciphertext": _text(_secretbox(der, nonce, key)),
        }
        body = base64.encodebytes(json.dumps(document).encode()).decode()
        name = "ENCRYPTED COSIGN PRIVATE KEY"
        path.write_text(f"-----BEGIN {name}-----\n{body}-----END {name}-----\n")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _secretbox(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """NaCl's crypto_secretbox: XSalsa20 and Poly1305."""
    inner = _salsa(key, nonce[:16], rounds_only=True)
    stream = b"".join(
        _salsa(inner, nonce[16:] + struct.pack("<Q", block)) for block in range(len(message) // 64 + 2)
    )
    box = bytes(a ^ b for a, b in zip(message, stream[32:], strict=False))
    return poly1305.Poly1305.generate_tag(stream[:32], box) + box


def _salsa(key: bytes, block: bytes, *, rounds_only: bool = False) -> bytes:
    """One block of Salsa20, or of HSalsa20."""
    c, k, n = (
        struct.unpack("<4I", b"expand 32-byte k"),
        struct.unpack("<8I", key),
        struct.unpack("<4I", block),
    )
    start = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    x = list(start)
    columns = [(0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)]
    rows = [(0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)]
    for _ in range(10):
        for a, b, c_, d in (*columns, *rows):
            for target, one, two, bits in ((b, a, d, 7), (c_, b, a, 9), (d, c_, b, 13), (a, d, c_, 18)):
                s = (x[one] + x[two]) & 0xFFFFFFFF
                x[target] ^= ((s << bits) | (s >> (32 - bits))) & 0xFFFFFFFF
    if rounds_only:
        return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(x, start, strict=True)))
