"""Text from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str, limit: int) -> str:
    """`text`, fit for logs and terminals: one line, no control characters, cut at `limit`."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
