"""Whose signatures the agent's settings require, and the judgement on one commit or tag.

| `Mode` | what must be signed |
|---|---|
| HEAD | the commit that is deployed |
| TAG | the annotated tag that is followed; its name must be the one followed |
| EVERY | the commit that is deployed and every one since the last deployed one |

The key files are read again for each judgement, so a verdict is as old as the keys it was made with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from agent.config import Settings
from agent.domain.errors import OperatorNeeded
from agent.kit.signatures import openpgp, signers, sshsig
from agent.kit.signatures.refused import KeyInvalid, Refused
from agent.kit.text import printable
from agent.source.trust import signed
from agent.source.trust.signed import NotSigned, Signed

FILE_MAX = 4 << 20
NAMESPACE = "git"  # of SSH signatures
REASONS = frozenset({"SignatureMissing", "SignatureRefused", "SignersUnusable"})


class Mode(StrEnum):
    """See the module."""

    HEAD = "head"
    TAG = "tag"
    EVERY = "every"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are trusted now."""

    ssh: tuple[signers.AllowedKey, ...] = ()
    openpgp: openpgp.Keyring | None = None


class Trust:
    """The policy.

    Args:
        mode: what must be signed.
        ssh: file of allowed signers, or None.
        openpgp: file of OpenPGP certificates, or None.
    """

    def __init__(self, mode: Mode, ssh: Path | None, openpgp: Path | None) -> None:
        self.mode = mode
        self._ssh = ssh
        self._openpgp = openpgp

    def version(self) -> tuple[tuple[int, ...], ...]:
        """Changes when a key file does: by its place on disk, size and times, without reading it."""
        found = []
        for path in (self._ssh, self._openpgp):
            try:
                status = os.stat(path) if path is not None else None
            except OSError:
                status = None
            found.append(
                () if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            )
        return tuple(found)

    def keys(self) -> Keys:
        """The keys as they are now. Blocks. Raises OperatorNeeded("SignersUnusable")."""
        ssh: tuple[signers.AllowedKey, ...] = ()
        ring = None
        if self._ssh is not None:
            try:
                ssh = tuple(signers.parse(_read(self._ssh).decode()))
            except ValueError as error:
                raise _unusable(self._ssh, str(error)) from None
        if self._openpgp is not None:
            if not openpgp.is_there():
                words = "OpenPGP needs the extra: pip install emptybox[openpgp]"
                raise OperatorNeeded("SignersUnusable", words, where=str(self._openpgp))
            try:
                ring = openpgp.read(_read(self._openpgp))
            except KeyInvalid as error:
                raise _unusable(self._openpgp, str(error)) from None
        return Keys(ssh, ring)

    def commits(self, contents: Iterable[tuple[str, bytes]], object_format: str) -> str:
        """Judge commits, (id, content) each; the signer of the first, fit to be shown. Blocks.

        Raises OperatorNeeded("SignatureMissing", "SignatureRefused", "SignersUnusable").
        """
        keys = self.keys()
        names = [
            _judge(f"the commit {oid[:12]}", partial(signed.of_commit, content, object_format), keys)
            for oid, content in contents
        ]
        return names[0]

    def tag(self, content: bytes | None, name: str, target: str) -> str:
        """Judge the tag followed under `name`, which must point to the object `target`. As `commits`."""
        what = f"the tag {printable(name, 80)}"
        if content is None:
            raise _missing(what, "it is not an annotated tag")
        signer = _judge(what, lambda: signed.of_tag(content), self.keys())
        headers = signed.tag_headers(content)
        if headers.get("tag") != name:
            other = printable(headers.get("tag", ""), 80)
            raise _refused(what, f"it was signed under the name {other!r}", "")
        if headers.get("type") != "commit" or headers.get("object") != target:
            raise _refused(what, "what it points to is not a commit", "")
        return signer


def trust_of(settings: Settings) -> Trust | None:
    """What the settings say of signatures; None when they require none."""
    if not settings.signed:
        return None
    return Trust(Mode(settings.signed), settings.ssh_signers, settings.openpgp_keys)


def _judge(what: str, parts: Callable[[], Signed], keys: Keys) -> str:
    try:
        found = parts()
    except NotSigned as error:
        raise _missing(what, str(error)) from None
    try:
        if found.signature.startswith(sshsig.HEAD):
            if not keys.ssh:
                raise Refused("it is signed by SSH, and no allowed signers are named (--ssh-signers)")
            key = sshsig.verify(
                found.signature, NAMESPACE, found.time, keys.ssh,
                lambda name: hashlib.new(name, found.payload).digest(),
            )  # fmt: skip
            return f"{printable(key.principals, 100)} (SSH {sshsig.fingerprint(key.blob)})"
        if found.signature.startswith(signed.OPENPGP_HEADS):
            if keys.openpgp is None:
                raise Refused("it is signed by OpenPGP, and no keys are named (--openpgp-keys)")
            name, fingerprint = openpgp.verify(found.payload, found.signature, keys.openpgp)
            return f"{printable(name, 100)} (OpenPGP {fingerprint})".strip()
    except Refused as error:
        raise _refused(what, str(error), error.key) from None
    raise _refused(what, "it is signed in a way that is not supported: use SSH or OpenPGP", "")


def _missing(what: str, words: str) -> OperatorNeeded:
    remedy = "sign it (git commit -S, git tag -s) and push; only signed states are deployed here (--signed)"
    return OperatorNeeded("SignatureMissing", f"{what} is not accepted: {words}", remedy=remedy)


def _refused(what: str, words: str, key: str) -> OperatorNeeded:
    by = f" (key {key})" if key else ""
    remedy = "have it signed by a trusted key, or trust that key in the agent's settings"
    return OperatorNeeded("SignatureRefused", f"{what} is not accepted: {words}{by}", remedy=remedy)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from error
    if len(data) > FILE_MAX:
        raise _unusable(path, f"it is larger than {FILE_MAX} bytes")
    return data


def _unusable(path: Path, words: str) -> OperatorNeeded:
    return OperatorNeeded(
        "SignersUnusable",
        f"the file of trusted keys cannot be used: {printable(words, 200)}",
        where=str(path),
        remedy="correct it; nothing is deployed meanwhile",
    )
