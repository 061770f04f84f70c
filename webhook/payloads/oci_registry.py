"""Notifications of OCI registries (CNCF Distribution and those that took over its format).

Told apart by the content type; they prove themselves by the Authorization header that the registry's
endpoint is configured with: the secret, or `Bearer` and the secret. Events come in envelopes of several.
https://distribution.github.io/distribution/about/notifications/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from webhook.event import ArtifactEvent, Event, OtherEvent
from webhook.payloads.forge import CHANGES_MAX, Headers, authorization, plain
from webhook.payloads.push import Text, decode
from webhook.signature import check_token

_TYPE = "application/vnd.docker.distribution.events."


class _Target(msgspec.Struct):
    repository: Text | None = None
    url: Text | None = None
    tag: Text | None = None
    digest: Text | None = None


class _Event(msgspec.Struct):
    action: Text
    id: Text | None = None
    target: _Target | None = None


class _Envelope(msgspec.Struct):
    events: Annotated[list[_Event], msgspec.Meta(max_length=CHANGES_MAX)]


class OciRegistry:
    """A registry that sends Distribution's notifications."""

    name = "oci-registry"

    def sent(self, headers: Headers) -> bool:
        """See `Forge`."""
        return headers.get("Content-Type", "").lower().startswith(_TYPE)

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        check_token(authorization(headers), secrets, what="the token in Authorization")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:  # noqa: ARG002 - they say nothing
        """See `Forge`."""
        events = decode(document, _Envelope).events
        delivery = plain(events[0].id or "") if events else ""
        pushed = [event.target for event in events if event.action == "push" and event.target is not None]
        if not pushed:
            return OtherEvent(self.name, delivery, plain(events[0].action) if events else "")
        names = dict.fromkeys(name for t in pushed for name in (t.repository, t.url) if name)
        last = pushed[-1]
        return ArtifactEvent(self.name, delivery, tuple(names), last.tag or "", last.digest or "")
