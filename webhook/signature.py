"""Signatures (HMAC, RFC 2104), tokens sent in the open, time windows, and the secrets behind all of them.

Several secrets may be valid at once, so that one can be replaced without losing a delivery. Every one is
tried and every comparison takes constant time, whatever the outcome of the others.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

MOST_SECRETS = 16
_FILE_LIMIT = 64 * 1024  # bytes
_HEX = re.compile(r"[0-9a-fA-F]+")
_DIGITS = {"sha256": 64, "sha512": 128}  # hex digits of an HMAC
TIME_WINDOW = 300.0  # seconds a signed time may be off, as Standard Webhooks recommends


class SignatureRefused(Exception):
    """A delivery is not proved genuine.

    `reason`: SignatureMissing, SignatureMalformed, SignatureWrong, SignatureExpired, TokenMissing or
    TokenWrong. `challenge` is the scheme of the answer's WWW-Authenticate.
    """

    challenge = "HMAC-SHA256"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SecretsInvalid(Exception):
    """A file cannot be one of secrets. The message says why, and quotes nothing of it."""


class TokenRefused(SignatureRefused):
    """The sender proves itself by a token and not by a signature; it is missing or wrong."""

    def __init__(self, reason: str, message: str, challenge: str = "Bearer") -> None:
        super().__init__(reason, message)
        self.challenge = challenge


def check_hmac(
    message: bytes, signature: str | None, secrets: Sequence[bytes], *, header: str, algorithm: str = "sha256"
) -> None:
    """Check that `signature` is the hex HMAC of `message` under one of `secrets`.

    Args:
        message: the bytes the forge signed.
        signature: the text of the header without any prefix; None or "" when there is none.
        secrets: non-empty secrets.
        header: name of the header, for the message.
        algorithm: sha256 or sha512.

    Raises:
        SignatureRefused: it is missing, not a hex digest, or made with another secret or message.
    """
    if not signature:
        raise SignatureRefused(
            "SignatureMissing",
            f"{header} is missing or empty; set the secret in the forge's webhook settings",
        )
    # Only after this check is the text ASCII: compare_digest raises TypeError on anything else in a str.
    if len(signature) != _DIGITS[algorithm] or not _HEX.fullmatch(signature) or not signature.isascii():
        raise SignatureRefused("SignatureMalformed", f"{header} is not {_DIGITS[algorithm]} hex digits")
    given = bytes.fromhex(signature)
    matches = [hmac.compare_digest(given, hmac.digest(secret, message, algorithm)) for secret in secrets]
    if not any(matches):
        raise SignatureRefused(
            "SignatureWrong", f"{header} was not made of this body with a secret that is configured here"
        )


def check_prefixed(message: bytes, text: str | None, secrets: Sequence[bytes], *, header: str) -> None:
    """Check `sha256=<hex>`, as GitHub and Bitbucket send it. Raises SignatureRefused, also for SHA-1."""
    signature = text or ""
    if signature and not signature.startswith("sha256="):
        raise SignatureRefused("SignatureMalformed", f"{header} does not begin with sha256=")
    check_hmac(message, signature.removeprefix("sha256="), secrets, header=header)


def check_standard(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes], now: float | None = None
) -> None:
    """Check a signature by Standard Webhooks: webhook-id, webhook-timestamp and webhook-signature.

    Keys are the secrets that begin with `whsec_`, base64 after that. Raises SignatureRefused: none of the
    signatures is of version 1 and made with one of them, or it was made more than five minutes ago.
    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    keys = [key for key in map(_standard_key, secrets) if key]
    if not keys:
        raise SignatureRefused(
            "SignatureWrong", "webhook-signature is made with a whsec_ secret; none is configured here"
        )
    identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not identity or not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise SignatureRefused("SignatureMalformed", "webhook-id or webhook-timestamp is missing or no such")
    signed = f"{identity}.{stamp}.".encode(errors="surrogateescape") + body
    given = [_decoded(part[3:]) for part in headers["webhook-signature"].split(" ")[:16] if part[:3] == "v1,"]
    wanted = [hmac.digest(key, signed, "sha256") for key in keys]
    if not any([hmac.compare_digest(one, other) for one in given for other in wanted]):  # noqa: C419 - all
        raise SignatureRefused(
            "SignatureWrong", "webhook-signature was not made of this delivery with a secret configured here"
        )
    if abs((time.time() if now is None else now) - int(stamp)) > TIME_WINDOW:
        raise SignatureRefused(
            "SignatureExpired", "webhook-timestamp is more than five minutes off; are both clocks right?"
        )


def _standard_key(secret: bytes) -> bytes:
    return _decoded(secret[6:].decode(errors="replace")) if secret.startswith(b"whsec_") else b""


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""


def check_token(given: str | None, secrets: Sequence[bytes], *, what: str, challenge: str = "Bearer") -> None:
    """Check that a token sent in the open is one of `secrets`. Raises TokenRefused.

    Such a token says who sends, and nothing about the body.
    """
    if not given:
        raise TokenRefused("TokenMissing", f"{what} is missing or empty", challenge)
    token = given.encode(errors="surrogateescape")
    if not any([hmac.compare_digest(token, secret) for secret in secrets]):  # noqa: C419 - all of them
        raise TokenRefused("TokenWrong", f"{what} is not a secret that is configured here", challenge)


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets in a file, one a line, blanks around them and empty lines dropped.

    Small and read whole; call it again for each use, so that a rotated secret counts at once.
    Raises OSError; SecretsInvalid when the file is larger than 64 KiB or holds more than 16 secrets.
    """
    with path.open("rb") as file:
        content = file.read(_FILE_LIMIT + 1)
    if len(content) > _FILE_LIMIT:
        raise SecretsInvalid(f"{path} is larger than {_FILE_LIMIT} bytes")
    secrets = tuple(line.strip() for line in content.splitlines() if line.strip())
    if len(secrets) > MOST_SECRETS:
        raise SecretsInvalid(f"{path} holds more than {MOST_SECRETS} secrets")
    return secrets
