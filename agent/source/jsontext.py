"""JSON (RFC 8259) as a stream of tokens with their places; numbers keep their spelling.

The standard library's decoder tells no places, turns 1.10 into 1.1, and recurses.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]  # not in typeshed

_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![\w.+-])")
_CLOSING = {"{": "}", "[": "]"}


class JsonFault(Exception):
    """Not JSON, at a place that counts from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line, self.column = line, column


@dataclass(frozen=True, slots=True)
class Token:
    """kind: `{`, `[`, `}` or `]`, `key`, `text` (any scalar as it is spelled), or `null`."""

    kind: str
    text: str
    line: int
    column: int


def tokens(source: str) -> Iterator[Token]:
    """The tokens of one JSON document, in an order that is proved right. Raises JsonFault."""
    return _Scanner(source).run()


class _Scanner:
    """One pass over the text; `_open` holds the brackets that are still open."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._open: list[str] = []
        self._fresh = False  # the innermost bracket was opened just now
        self._lines = [0, *(m.end() for m in re.finditer("\n", source))]

    def run(self) -> Iterator[Token]:
        yield self._value()
        while self._open:
            closing = _CLOSING[self._open[-1]]
            fresh = self._fresh
            char = self._peek()
            if char == closing:
                yield self._token(char, char, self._at)
                self._at += 1
                self._open.pop()
                self._fresh = False
                continue
            if not fresh:
                self._expect(",", f"expected , or {closing}")
            if closing == "}":
                yield self._key()
            yield self._value()
        self._peek()
        if self._at < len(self._source):
            raise self._fault("something follows the end of the document")

    def _value(self) -> Token:
        char, at = self._peek(), self._at
        self._fresh = char in ("{", "[")
        if self._fresh:
            self._open.append(char)
            self._at += 1
            return self._token(char, char, at)
        if char == '"':
            return self._token("text", self._string(), at)
        found = _WORD.match(self._source, at)
        if not found:
            raise self._fault("expected a value" if char else "ends too early")
        self._at = found.end()
        return self._token("null" if found[0] == "null" else "text", found[0], at)

    def _key(self) -> Token:
        if self._peek() != '"':
            raise self._fault("expected a key in double quotes")
        at = self._at
        token = self._token("key", self._string(), at)
        self._expect(":", "expected a colon after the key")
        return token

    def _string(self) -> str:
        start = self._at
        try:
            text, self._at = scanstring(self._source, start + 1, True)
        except JSONDecodeError as error:
            raise self._fault(error.msg.lower(), error.pos) from None
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise self._fault("half of a surrogate pair", start)
        return str(text)

    def _peek(self) -> str:
        """The next character that is no space, or "" at the end."""
        self._at = _SPACE.match(self._source, self._at).end()  # type: ignore[union-attr]  # matches always
        return self._source[self._at : self._at + 1]

    def _expect(self, char: str, message: str) -> None:
        if self._peek() != char:
            raise self._fault(message)
        self._at += 1

    def _token(self, kind: str, text: str, at: int) -> Token:
        line = bisect_right(self._lines, at)
        return Token(kind, text, line, at - self._lines[line - 1] + 1)

    def _fault(self, message: str, at: int | None = None) -> JsonFault:
        token = self._token("", "", self._at if at is None else at)
        return JsonFault(message, token.line, token.column)
