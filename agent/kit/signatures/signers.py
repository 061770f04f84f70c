"""The file of allowed signers, ssh-keygen(1) "ALLOWED SIGNERS": which keys may sign what, and when.

Without input or output. A line is `PRINCIPALS [OPTIONS] KEYTYPE BASE64-KEY [COMMENT]`.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import fnmatch
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

_KEY_TYPE = re.compile(r"(?:ssh|ecdsa|sk)-[\w@.-]+")
_FLAG = "cert-authority"
_VALUED = ("namespaces", "valid-after", "valid-before")
_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')


class SignersInvalid(ValueError):
    """The file has a line that cannot be understood; the text says which and why."""


@dataclass(frozen=True, slots=True)
class AllowedKey:
    """One line: a key, whose it is, and its limits (times in seconds since the epoch)."""

    principals: str
    blob: bytes
    namespaces: tuple[str, ...] = ()
    after: float = float("-inf")
    before: float = float("inf")

    def objection(self, at: float, namespace: str) -> str:
        """Why a signature made at that time, in that namespace, does not count, "" when it does."""
        if self.namespaces and not any(fnmatch.fnmatchcase(namespace, n) for n in self.namespaces):
            return f"this key may not sign for {namespace!r} (namespaces)"
        if not self.after <= at < self.before:
            return "this key was not valid at the time of the signature"
        return ""


def parse(text: str, *, bare: bool = False) -> Sequence[AllowedKey]:
    """All keys, in the file's order. Raises SignersInvalid: a file half understood is not to be trusted.

    With `bare` a line may also be a public key as ssh-keygen writes it, whose comment says whose it is.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(_line(_named(line) if bare else line))
            except ValueError as error:
                raise SignersInvalid(f"line {number}: {error}") from None
    return keys


def _named(line: str) -> str:
    """The line of a public key with its comment as principals in front; others as they are."""
    words = line.split()
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        return line
    return " ".join(["-".join(words[2:]).replace('"', "") or "*", *words[:2]])


def _line(line: str) -> AllowedKey:
    words = _WORD.findall(line)
    at = next((n for n, word in enumerate(words[1:], 1) if _KEY_TYPE.fullmatch(word)), 0)
    if at not in (1, 2) or len(words) < at + 2:
        raise ValueError("write PRINCIPALS [OPTIONS] KEYTYPE KEY")
    try:
        blob = base64.b64decode(words[at + 1], validate=True)
    except binascii.Error:
        raise ValueError("the key is not base64") from None
    kind = words[at].encode()
    if blob[:4] != len(kind).to_bytes(4, "big") or blob[4 : 4 + len(kind)] != kind:
        raise ValueError(f"the key is not of type {words[at]}")
    options = _options(words[1]) if at == 2 else {}
    return AllowedKey(
        principals=words[0].strip('"'),
        blob=blob,
        namespaces=tuple(n.strip() for n in options.get("namespaces", "").split(",") if n.strip()),
        after=_time(options["valid-after"]) if "valid-after" in options else float("-inf"),
        before=_time(options["valid-before"]) if "valid-before" in options else float("inf"),
    )


def _options(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in re.findall(r'(?:[^,"]|"[^"]*")+', text):
        name, _, value = option.partition("=")
        name = name.lower()
        if name == _FLAG:
            raise ValueError("cert-authority is not supported: list the keys themselves")
        if name not in _VALUED or not value or name in found:
            raise ValueError(f"the option {option[:40]!r} is not known, or given twice")
        found[name] = value.strip('"')
    return found


def _time(text: str) -> float:
    """YYYYMMDD[HHMM[SS]], in the local time zone, with a Z behind it in UTC."""
    digits = text.removesuffix("Z")
    formats = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    if not digits.isdigit() or len(digits) not in formats:
        raise ValueError(f"{text[:40]!r} is not a time; write YYYYMMDD or YYYYMMDDHHMM, with Z for UTC")
    parsed = time.strptime(digits, formats[len(digits)])
    return float(calendar.timegm(parsed)) if text.endswith("Z") else time.mktime(parsed)
