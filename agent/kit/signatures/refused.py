"""What every format says of a signature or a key that does not count."""

from __future__ import annotations


class Refused(Exception):
    """The signature does not count; the text says why, `key` is the fingerprint of its key or ""."""

    def __init__(self, words: str, key: str = "") -> None:
        super().__init__(words)
        self.key = key


class KeyInvalid(ValueError):
    """There is no key in it that can be read; the text says why, never what stands there."""
