"""Keys and signatures in cosign's formats, by the cryptography library: no package has cosign itself."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
