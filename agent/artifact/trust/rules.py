"""Whose signatures the agent's settings require of artifacts, by where they come from.

The longest beginning that fits an artifact's URL decides; several rules with one beginning are one, with all
their keys. The state repository can ask for more than a rule, never for less.

Addresses are compared as servers understand them: scheme and host in lower case, without user, default port
and query, the path decoded and without empty and "." parts. One with ".." in it is refused where there are
rules: who knows what a server makes of it. What a server redirects to is not looked at, but by the signature.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from agent.artifact.source import path_of, shown, split
from agent.domain.errors import OperatorNeeded, Permanent
from agent.kit.signatures import keys, openpgp
from agent.kit.signatures.keys import KeySet
from agent.kit.signatures.refused import KeyInvalid

EVERYWHERE = "*"
SETTING = "--require-signature"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is required below a beginning: signatures by the keys in these files, or with none nothing."""

    beginning: str
    files: tuple[Path, ...]

    @property
    def words(self) -> str:
        """For people."""
        return f"{SETTING} {self.beginning}"


class Rules:
    """The settings' rules.

    Args:
        rules: (beginning, file of keys) each; None as file is for what needs no signature. The beginning is
            `*`, a host with or without port, or a URL up to a part of its path.
    """

    def __init__(self, rules: Sequence[tuple[str, Path | None]] = ()) -> None:
        found: dict[str, tuple[Path, ...]] = {}
        for beginning, file in rules:
            found[beginning] = found.get(beginning, ()) + ((file,) if file is not None else ())
        self._rules = tuple(Rule(beginning, files) for beginning, files in found.items())
        self._read: dict[Path, tuple[tuple[int, ...], KeySet]] = {}

    def find(self, url: str) -> Rule | None:
        """The rule for an artifact, None when no signature is required of it. Raises Permanent."""
        if not self._rules:
            return None
        place = _place(url)
        fitting = [
            (length, rule) for rule in self._rules if (length := _length(rule.beginning, place)) is not None
        ]
        rule = max(fitting, key=lambda pair: pair[0])[1] if fitting else None
        return rule if rule is not None and rule.files else None

    def keys(self, rule: Rule) -> KeySet:
        """The keys of a rule as they are now. Blocks, seldom long. Raises OperatorNeeded."""
        return reduce(or_, [self._keys(file) for file in rule.files])

    def _keys(self, file: Path) -> KeySet:
        try:
            status = os.stat(file)
            version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            known = self._read.get(file)
            if known is None or known[0] != version:
                with open(file, "rb") as opened:
                    known = version, keys.parse(opened.read(keys.TEXT_MAX + 1))
                self._read[file] = known
            return known[1]
        except OSError as error:
            words = error.strerror or type(error).__name__
        except KeyInvalid as error:
            words = str(error)
        except openpgp.NotInstalled:
            words = "OpenPGP needs the extra: pip install emptybox[openpgp]"
        raise OperatorNeeded(
            "SignersUnusable",
            f"the file of trusted keys cannot be used: {words}",
            where=str(file),
            remedy="correct it; no artifact it is for is deployed meanwhile",
        )


def check(rules: Sequence[tuple[str, Path | None]]) -> list[tuple[Path, str, int]]:
    """For `emptybox doctor`: each file of keys with what is wrong ("" nothing), and how many keys it has.

    Blocks.
    """
    found = []
    for file in dict.fromkeys(file for _, file in rules if file is not None):
        try:
            there = Rules([(EVERYWHERE, file)]).keys(Rule(EVERYWHERE, (file,)))
        except OperatorNeeded as problem:
            found.append((file, problem.info.message, 0))
            continue
        now = time.time()
        dead = [key for key in there.ssh if key.objection(now, keys.NAMESPACE)]
        ring = list(there.openpgp.certificates) if there.openpgp is not None else []
        lost = [name for name in ring if there.openpgp is not None and not there.openpgp.counts(name)]
        count = len(there.minisign) + len(there.ssh) + len(there.cosign) + len(ring) - len(dead) - len(lost)
        found.append((file, "" if count else "none of its keys may sign artifacts now", count))
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    scheme: str
    host: str
    port: int | None  # None where the scheme has no usual one
    path: str


def _place(url: str) -> _Place:
    """An address, to be compared. Raises Permanent."""
    parts, path = split(url), path_of(url)
    try:
        port = parts.port
    except ValueError:
        raise Permanent("UrlInvalid", "not a valid URL", where=shown(url)) from None
    if ".." in path.split("/") or "\\" in path:
        raise Permanent(
            "UrlInvalid",
            f'an address with ".." in it cannot be held against the rules of {SETTING}',
            where=shown(url),
            remedy="write it without",
        )
    scheme = parts.scheme.lower()
    if scheme == "oci":  # its tag and digest belong to no path
        path = path.partition("@")[0].partition(":")[0]
    return _Place(
        scheme,
        "" if scheme == "file" else (parts.hostname or "").rstrip("."),
        _PORTS.get(scheme) if port is None else port,
        "".join(f"/{part}" for part in path.split("/") if part not in ("", ".")),
    )


def _length(beginning: str, place: _Place) -> int | None:
    """How much of a place a rule's beginning fits; None when it does not."""
    if beginning == EVERYWHERE:
        return 0
    if "://" not in beginning:
        named = split(f"//{beginning}")
        fits = place.host == (named.hostname or "").rstrip(".") and named.port in (None, place.port)
        return (1 if named.port is None else 2) if fits else None
    wanted = _place(beginning)
    if (place.scheme, place.host, place.port) != (wanted.scheme, wanted.host, wanted.port):
        return None
    fits = not wanted.path or place.path == wanted.path or place.path.startswith(f"{wanted.path}/")
    return 3 + len(wanted.path) if fits else None
