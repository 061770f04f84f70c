"""GitHub: X-GitHub-Event, X-Hub-Signature-256: sha256=<hex> over the raw body, form or JSON.

What is published to GHCR comes as the event `package` (older: `registry_package`).
https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

from collections.abc import Sequence

from webhook.event import Event, OtherEvent, Ping
from webhook.payloads import form
from webhook.payloads.forge import Headers, word
from webhook.payloads.published import PUBLISHED, read_published
from webhook.payloads.push import read_push
from webhook.signature import check_prefixed

_SIGNATURE = "X-Hub-Signature-256"


class GitHub:
    """GitHub, in the cloud or one's own."""

    name = "github"

    def sent(self, headers: Headers) -> bool:
        """Others send this header too: they are asked before."""
        return "X-GitHub-Event" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`. The older SHA-1 signature in X-Hub-Signature does not count."""
        check_prefixed(body, headers.get(_SIGNATURE), secrets, header=_SIGNATURE)
        return form.payload(body) if form.is_form(headers) else body

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        event, delivery = word(headers, "X-GitHub-Event"), word(headers, "X-GitHub-Delivery")
        if event == "push":
            return read_push(document, forge=self.name, delivery=delivery)
        if event == "ping":
            return Ping(self.name, delivery)
        if event in PUBLISHED:
            return read_published(document, forge=self.name, delivery=delivery, event=event)
        return OtherEvent(self.name, delivery, event)
