"""One artifact's case: whose signature is required of it, and the signatures that were found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.domain.artifact_spec import Checksum
from agent.domain.errors import Permanent
from agent.kit.signatures import cosign, minisign, openpgp, sshsig
from agent.kit.signatures.keys import NAMESPACE, KeySet, Mark
from agent.kit.signatures.refused import Refused

HASHES = {"minisign": ("blake2b",), "ssh": sshsig.HASHES, "cosign": ("sha256",), "openpgp": ()}
_NAMES = {"ssh": "SSH", "openpgp": "OpenPGP"}


@dataclass(frozen=True, slots=True)
class Demand:
    """One who asks for a signature: by any of these keys."""

    keys: KeySet
    by: str


@dataclass(frozen=True, slots=True)
class Found:
    """The bytes of one signature file, and where it was."""

    data: bytes
    where: str

    @property
    def kind(self) -> str:
        """Its format, by its beginning."""
        start = self.data.lstrip()[:64]
        if start.startswith(b"untrusted comment:"):
            return "minisign"
        if start.startswith(sshsig.HEAD):
            return "ssh"
        if start.startswith(b"-----BEGIN PGP") or self.data[:1] >= b"\x80":
            return "openpgp"
        return "cosign"


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be judged once the bytes are known.

    Args:
        where: the artifact, for errors.
        remember: called, in the thread that judges, with who signed, once all demands are met.
    """

    demands: tuple[Demand, ...]
    found: tuple[Found, ...]
    checksum: Checksum
    where: str
    remember: Callable[[Sequence[Mark]], None]

    @property
    def hashes(self) -> frozenset[str]:
        """The digests that are needed to judge."""
        return frozenset(name for one in self.found for name in HASHES[one.kind])

    @property
    def whole(self) -> bool:
        """Whether a copy of all bytes is needed, because the format's library wants to read them itself."""
        return any(one.kind == "openpgp" for one in self.found)

    def judge(self, digests: Mapping[str, bytes], copy: Path | None) -> None:
        """Hold every demand against the signatures. Blocks. Raises Permanent, OSError."""
        marks = [self._met(demand, digests, copy) for demand in self.demands]
        self.remember(list({mark.id: mark for mark in marks}.values()))

    def _met(self, demand: Demand, digests: Mapping[str, bytes], copy: Path | None) -> Mark:
        said = []
        for one in self.found:
            try:
                return verdict(one, demand.keys, digests, copy)
            except Refused as refused:
                by = f" (key {refused.key})" if refused.key else ""
                said.append(f"{one.where}: {refused}{by}")
        raise refusal(said, demand, self.where)


def verdict(one: Found, keys: KeySet, digests: Mapping[str, bytes], copy: Path | None) -> Mark:
    """Who signed what has these digests. Blocks. Raises Refused."""
    kind = one.kind
    if not getattr(keys, kind):
        raise Refused(f"it is a signature of {_NAMES.get(kind, kind)}, and no such key is trusted")
    if kind == "minisign":
        key, _ = minisign.verify(one.data, keys.minisign, digests["blake2b"])
        return Mark(f"minisign:{key}", f"minisign {key.name}")
    if kind == "ssh":
        allowed = sshsig.verify(one.data, NAMESPACE, time.time(), keys.ssh, digests.__getitem__)
        name = sshsig.fingerprint(allowed.blob)
        return Mark(f"ssh:{name}", f"{_plain(allowed.principals)} (SSH {name})")
    if kind == "openpgp":
        assert keys.openpgp is not None
        assert copy is not None
        user, name = openpgp.verify(copy, one.data, keys.openpgp)
        return Mark(f"openpgp:{name}", f"{_plain(user)} (OpenPGP {name})".strip())
    return of_cosign(cosign.verify_file(one.data, keys.cosign, digests["sha256"]))


def of_cosign(key: cosign.PublicKey) -> Mark:
    """The mark of a key that cosign signs with."""
    return Mark(f"cosign:{key.name}", f"cosign {key.name}")


def refusal(said: Sequence[str], demand: Demand, where: str) -> Permanent:
    """None of the signatures meets a demand; `said` has the reasons."""
    return Permanent(
        "ArtifactSignatureRefused",
        f"no signature that {demand.by} asks for is good: {'; '.join(said[:4])}",
        where=where,
        remedy="sign these very bytes with a trusted key, or trust the key that signed; then: emptybox retry",
    )


def missing(demand: Demand, looked: Sequence[str], where: str) -> Permanent:
    """There is no signature where one has to be."""
    return Permanent(
        "ArtifactUnsigned",
        f"{demand.by} asks for a signature ({' or '.join(demand.keys.kinds)}), and there is none at "
        + ", ".join(looked),
        where=where,
        remedy="sign it and put the signature there, or name its place (artifact.signature.url); "
        "then: emptybox retry",
    )


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:100]
