"""Makes signatures, for whoever publishes: the other half of what is judged here.

| the key | the signature |
|---|---|
| minisign's, open or with a password | FILE.minisig |
| an OpenSSH private key | FILE.sig, in the namespace `file` |
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agent.kit.signatures import minisign, sshsig
from agent.kit.signatures.refused import KeyInvalid

NAMESPACE = "file"  # of SSH signatures, as `ssh-keygen -Y sign -n file`
KEY_MAX = 64 << 10  # bytes
_MINISIGN, _SSH = b"untrusted comment:", b"-----BEGIN OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Made:
    """A signature, and what is added to the name of the signed file to get its own."""

    suffix: str
    data: bytes


def sign_file(path: Path, key: Path, password: str | None = None, comment: str = "") -> Made:
    """Sign the file at `path` with the private key in the file `key`. Blocks.

    `comment` is the trusted comment of a minisign signature (default: the file's name). Raises OSError, and
    KeyInvalid when the key, or its password, is of no use.
    """
    with open(key, "rb") as file:
        data = file.read(KEY_MAX + 1)
    if len(data) > KEY_MAX:
        raise KeyInvalid("this is no private key")
    if data.lstrip().startswith(_MINISIGN):
        secret = minisign.load(data, password)
        said = comment or f"file:{path.name}\thashed"
        return Made(".minisig", minisign.sign(_digest(path, "blake2b"), secret, said))
    if data.lstrip().startswith(_SSH):
        made = sshsig.sign(_digest(path, "sha512"), data, password=password, namespace=NAMESPACE)
        return Made(".sig", made)
    raise KeyInvalid("this is no private key of minisign or OpenSSH")


def _digest(path: Path, algorithm: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).digest()
