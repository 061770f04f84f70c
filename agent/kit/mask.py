"""Keeping secrets out of text: exact values that were registered, and what URLs carry in the open.

Whoever reads a secret registers its value once (`secrets.add`); every place where text leaves the
agent (log, status, events, history, metrics' labels never) passes it through `secrets.text` or, for
JSON-able data, `secrets.data`. Values shorter than `SHORTEST` are not replaced: they would make
ordinary text unreadable and are no secrets worth the name.
"""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

SHORTEST = 4
MOST = 1000  # texts that are looked for, as short-lived secrets come and go: 30 ms to prepare, 0.1 ms a line
MASK = "***"

_USERINFO = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^/\s@\"'<>]{1,2048}@")
_PARAMETER = re.compile(
    r"([?&](?:access_token|private_token|token|secret|password|passwd|api_?key|key|sig|signature"
    r"|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential)=)"
    r"[^&\s\"'<>]+",
    re.IGNORECASE,
)


def mask_urls(text: str) -> str:
    """`text` with the user part of URLs and the query values that carry credentials replaced."""
    if "://" in text:
        text = _USERINFO.sub(rf"\1{MASK}@", text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\1{MASK}", text)
    return text


def _forms(text: str) -> Iterator[str]:
    """How a value may stand in a text."""
    whole = text.strip()
    for form in {whole, *(line.strip() for line in text.splitlines())}:
        if len(form) >= SHORTEST:
            yield form
            yield quote(form, safe="")
            yield quote_plus(form)
            yield json.dumps(form)[1:-1]
            yield json.dumps(form, ensure_ascii=False)[1:-1]
    if len(whole) >= SHORTEST:
        yield b64encode(whole.encode(errors="replace")).decode().rstrip("=")


class Masker:
    """A registry of secret values."""

    def __init__(self) -> None:
        self._values: dict[str, None] = {}  # oldest first
        self._pattern: re.Pattern[str] | None = None
        self._adding = threading.Lock()  # secrets are read in threads

    def add(self, *values: str | bytes) -> None:
        """Register values: each as it stands and line by line, and as URLs, JSON and base64 write it.

        Again is no error, and makes a value one of the newest, of which `MOST` texts are kept.
        """
        with self._adding:
            self._add(values)

    def _add(self, values: Iterable[str | bytes]) -> None:
        new = False
        for value in values:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            for form in _forms(text):
                new = new or form not in self._values
                self._values.pop(form, None)
                self._values[form] = None
        if new:
            for form in list(self._values)[: max(0, len(self._values) - MOST)]:
                del self._values[form]
            longest_first = sorted(self._values, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """`text` without registered values and without credentials in URLs."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return mask_urls(text)

    def data(self, value: Any) -> Any:
        """JSON-able `value` with every text in it masked; the names of members stay as they are."""
        return self._data(value, {})

    def _data(self, value: Any, known: dict[str, str]) -> Any:
        """`known` are texts that were masked already: most of a picture says the same again and again."""
        if isinstance(value, str):
            masked = known.get(value)
            if masked is None:
                masked = known[value] = self.text(value)
            return masked
        if value is None or isinstance(value, (int, float)):  # before what is slow to ask
            return value
        if isinstance(value, (dict, Mapping)):
            return {name: self._data(inner, known) for name, inner in value.items()}
        if isinstance(value, (list, tuple, Sequence)) and not isinstance(value, bytes):
            return [self._data(inner, known) for inner in value]
        return value


secrets = Masker()
"""The process's registry: secrets are read in many places, and text leaves in many others."""
