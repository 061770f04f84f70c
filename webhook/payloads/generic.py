"""Anybody with a secret: a header with the HMAC of the raw body, SHA-256 or SHA-512, in hex.

`sha256=<hex>`, `sha512=<hex>` or the bare digits, in X-Signature-256, X-Signature or the header that the
settings name. A body in GitHub's shape of a push is read as one; every other is a hint that something may
have changed. X-Delivery names the delivery.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from webhook.event import Event, Hint
from webhook.payloads import form
from webhook.payloads.forge import Headers, PayloadInvalid, word
from webhook.payloads.push import Text, decode, read_push
from webhook.signature import SignatureRefused, check_hmac

HEADERS = ("X-Signature-256", "X-Signature")
_LENGTHS = {64: "sha256", 128: "sha512"}


class _Anything(msgspec.Struct):
    ref: Text | None = None
    after: Text | None = None


class Generic:
    """A sender of one's own. `header` is one more name under which the signature may come."""

    name = "generic"

    def __init__(self, header: str = "") -> None:
        self._headers = (header, *HEADERS) if header else HEADERS

    def sent(self, headers: Headers) -> bool:
        """See `Forge`."""
        return any(name in headers for name in self._headers)

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        header = next(name for name in self._headers if name in headers)
        text = headers[header].strip()
        algorithm, equals, digest = text.partition("=")
        if not equals:
            algorithm, digest = _LENGTHS.get(len(text), "sha256"), text
        if algorithm not in _LENGTHS.values():
            raise SignatureRefused("SignatureMalformed", f"{header} is neither sha256= nor sha512=")
        check_hmac(body, digest, secrets, header=header, algorithm=algorithm)
        return form.payload(body) if form.is_form(headers) else body

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        delivery = word(headers, "X-Delivery") or word(headers, "X-Request-Id")
        try:
            told = decode(document, _Anything) if document.strip() else _Anything()
        except PayloadInvalid:
            return Hint(self.name, delivery)
        if told.ref is None or told.after is None:
            return Hint(self.name, delivery)
        return read_push(document, forge=self.name, delivery=delivery)
