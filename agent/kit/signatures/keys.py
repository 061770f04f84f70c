"""Public keys of any format, as one file or text holds them, and what is remembered of a judgement.

The format is told by the content: `RW…` is minisign's, PEM is cosign's, an armored or binary OpenPGP
certificate is OpenPGP's, all other lines are SSH's (allowed signers, or public keys as ssh-keygen writes
them). One text holds keys of one format.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.kit.signatures import cosign, minisign, openpgp, signers, sshsig
from agent.kit.signatures.refused import KeyInvalid

KINDS = ("minisign", "ssh", "cosign", "openpgp")
TEXT_MAX = 1 << 20  # bytes
NAMESPACE = "file"  # what SSH signatures of files are made for
_PGP = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True, slots=True)
class Mark:
    """Who signed: `id` is the format and what identifies the key, `name` is for people."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys, any of which may sign."""

    minisign: tuple[minisign.PublicKey, ...] = ()
    ssh: tuple[signers.AllowedKey, ...] = ()
    cosign: tuple[cosign.PublicKey, ...] = ()
    openpgp: openpgp.Keyring | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The formats there are keys of."""
        return tuple(kind for kind in KINDS if getattr(self, kind))

    def __or__(self, other: KeySet) -> KeySet:
        rings = [ring for ring in (self.openpgp, other.openpgp) if ring is not None]
        ring = openpgp.Keyring({k: v for one in rings for k, v in one.certificates.items()})
        return KeySet(
            self.minisign + other.minisign,
            self.ssh + other.ssh,
            self.cosign + other.cosign,
            ring if rings else None,
        )

    def holds(self, mark: str, now: float) -> bool:
        """Whether the key that `mark` (its id) names is among these, and counts at this time."""
        kind, _, name = mark.partition(":")
        if kind == "minisign":
            return any(str(key) == name for key in self.minisign)
        if kind == "cosign":
            return any(key.name == name for key in self.cosign)
        if kind == "openpgp":
            return self.openpgp is not None and self.openpgp.counts(name)
        return kind == "ssh" and any(
            sshsig.fingerprint(key.blob) == name and not key.objection(now, NAMESPACE) for key in self.ssh
        )


def parse(data: bytes) -> KeySet:
    """The keys of one text. Blocks. Raises KeyInvalid, and openpgp.NotInstalled."""
    if len(data) > TEXT_MAX:
        raise KeyInvalid(f"it is larger than {TEXT_MAX} bytes")
    if data[:1] >= b"\x80" or _PGP in data:
        return KeySet(openpgp=openpgp.read(data))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise KeyInvalid("it is no text") from None
    if "-----BEGIN" in text:
        return KeySet(cosign=cosign.parse_keys(text))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "untrusted comment:"))]
    if not lines:
        raise KeyInvalid("there is no key in it")
    if any(line.startswith(minisign.PREFIX) and " " not in line for line in lines):
        return KeySet(minisign=minisign.parse_keys(text))
    try:
        return KeySet(ssh=tuple(signers.parse(text, bare=True)))
    except signers.SignersInvalid as error:
        raise KeyInvalid(str(error)) from None
