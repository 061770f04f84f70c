"""What Gogs and its descendants Gitea and Forgejo share: bare hex over the JSON, even inside a form."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.event import Event, OtherEvent
from webhook.payloads import form
from webhook.payloads.forge import Headers, word
from webhook.payloads.published import PUBLISHED, read_published
from webhook.payloads.push import read_push
from webhook.signature import check_hmac


class GogsFamily:
    """A forge whose headers are `prefix`-Event, `prefix`-Delivery and `prefix`-Signature.

    The signature is the hex HMAC-SHA256 of the JSON document; without a secret it is sent empty.
    """

    name: str
    prefix: str

    def sent(self, headers: Headers) -> bool:
        """See `Forge`."""
        return f"{self.prefix}-Event" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        document = form.payload(body) if form.is_form(headers) else body
        header = f"{self.prefix}-Signature"
        check_hmac(document, headers.get(header), secrets, header=header)
        return document

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        event, delivery = word(headers, f"{self.prefix}-Event"), word(headers, f"{self.prefix}-Delivery")
        if event == "push":
            return read_push(document, forge=self.name, delivery=delivery)
        return self.read_other(event, delivery, document)

    def read_other(self, event: str, delivery: str, document: bytes) -> Event:
        """An event that is not a push. Raises PayloadInvalid."""
        if event in PUBLISHED:
            return read_published(document, forge=self.name, delivery=delivery, event=event)
        return OtherEvent(self.name, delivery, event)
