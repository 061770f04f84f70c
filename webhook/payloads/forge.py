"""The one interface between the receiver and a forge: one file here and one row in `webhook.forges` each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from webhook.event import Event

Headers = Mapping[str, str]
"""Request headers, looked up in any case. Values may hold surrogates where bytes were not UTF-8."""

QUERY_TOKEN = ":token"  # noqa: S105 - a name
"""Among the headers: the value of ?token= in the URL, under a name that no header can have."""

CHANGES_MAX = 5000  # refs, resources or events that one delivery may name


class PayloadInvalid(Exception):
    """The body is not what this forge sends. The message says in which way, and quotes nothing of it."""


class Forge(Protocol):
    """How deliveries of one kind of forge are told apart, verified and read.

    `verify` and `read` may run in a thread: they keep no state and touch nothing but their arguments.
    """

    name: str

    def sent(self, headers: Headers) -> bool:
        """Whether this forge sent a request with these headers."""

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """The JSON document in `body`, proved genuine by one of `secrets`.

        Raises SignatureRefused, or PayloadInvalid when there is nothing a signature could be checked on.
        """

    def read(self, headers: Headers, document: bytes) -> Event:
        """What a verified document says. Raises PayloadInvalid."""


_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def word(headers: Headers, name: str) -> str:
    """A header that is an id or a name: as it is if it is a plain word of at most 128 characters, else ""."""
    return plain(headers.get(name, ""))


def plain(text: str) -> str:
    """The same for a text of the body."""
    return text if _WORD.fullmatch(text) else ""


def authorization(headers: Headers) -> str:
    """The token in Authorization, with the scheme `Bearer` or with none."""
    text = headers.get("Authorization", "").strip()
    return text[7:].lstrip() if text[:7].lower() == "bearer " else text
