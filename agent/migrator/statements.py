"""Where one statement of a PostgreSQL script ends: at a semicolon outside of quotes, comments and dollars.

See "Lexical Structure" in PostgreSQL's manual. Needed only for files without a transaction: several
statements sent at once are one transaction to the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
      (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<quoted>'(?:[^']|'')*(?:'|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>(?<![\w$])\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$)
    | (?P<begin>\bBEGIN\s+ATOMIC\b)
    | (?P<case>\bCASE\b)
    | (?P<end>\bEND\b)
    | (?P<semicolon>;)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def statements(text: str) -> Iterator[str]:
    """The statements, without the semicolons between them; what holds only comments is left out."""
    start = position = depth = 0
    says_something = False
    while (found := _TOKEN.search(text, position)) is not None:
        says_something = says_something or bool(text[position : found.start()].strip())
        position = found.end()
        match found.lastgroup:
            case "block":
                position = _after_comment(text, position)
            case "dollar":
                closing = text.find(found[0], position)
                position = len(text) if closing < 0 else closing + len(found[0])
                says_something = True
            case "begin":  # a function's body in SQL: its semicolons are its own
                depth += 1
            case "case" if depth:
                depth += 1
            case "end" if depth:
                depth -= 1
            case "semicolon" if not depth:
                if says_something:
                    yield text[start : found.start()].strip()
                start, says_something = position, False
            case "line":
                pass
            case _:
                says_something = True
    if says_something or text[position:].strip():
        yield text[start:].strip()


def _after_comment(text: str, position: int) -> int:
    """Behind a block comment, which may hold others."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)
