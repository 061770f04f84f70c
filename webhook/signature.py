"""HMAC-SHA256 signatures (RFC 2104) and the secrets they are made with.

Several secrets may be valid at once, so that one can be replaced without losing a delivery. Every one is
tried and every comparison takes constant time, whatever the outcome of the others.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from pathlib import Path

MOST_SECRETS = 16
_FILE_LIMIT = 64 * 1024  # bytes
_HEX = re.compile(r"[0-9a-fA-F]{64}")


class SignatureRefused(Exception):
    """A delivery is not proved genuine. `reason`: SignatureMissing, SignatureMalformed or SignatureWrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SecretsInvalid(Exception):
    """A file cannot be one of secrets. The message says why, and quotes nothing of it."""


def check_sha256(message: bytes, signature: str | None, secrets: Sequence[bytes], *, header: str) -> None:
    """Check that `signature` is the hex HMAC-SHA256 of `message` under one of `secrets`.

    Args:
        message: the bytes the forge signed.
        signature: the text of the header without any prefix; None or "" when there is none.
        secrets: non-empty secrets.
        header: name of the header, for the message.

    Raises:
        SignatureRefused: it is missing, not 64 hex digits, or made with another secret or message.
    """
    if not signature:
        raise SignatureRefused(
            "SignatureMissing",
            f"{header} is missing or empty; set the secret in the forge's webhook settings",
        )
    # Only after this check is the text ASCII: compare_digest raises TypeError on anything else in a str.
    if not _HEX.fullmatch(signature):
        raise SignatureRefused("SignatureMalformed", f"{header} is not 64 hex digits")
    given = bytes.fromhex(signature)
    matches = [hmac.compare_digest(given, hmac.digest(secret, message, "sha256")) for secret in secrets]
    if not any(matches):
        raise SignatureRefused(
            "SignatureWrong", f"{header} was not made of this body with a secret that is configured here"
        )


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
