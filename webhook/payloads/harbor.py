"""Harbor: names itself by no header; the "auth header" of its webhook policy is what tells it.

That is sent as Authorization: the secret, or `Bearer` and the secret.
https://goharbor.io/docs/latest/working-with-projects/project-configuration/configure-webhooks/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from webhook.event import ArtifactEvent, Event, OtherEvent
from webhook.payloads.forge import CHANGES_MAX, Headers, authorization, plain
from webhook.payloads.push import Text, decode
from webhook.signature import check_token

_PUSHED = ("PUSH_ARTIFACT", "UPLOAD_CHART")


class _Resource(msgspec.Struct):
    digest: Text | None = None
    tag: Text | None = None
    resource_url: Text | None = None


class _Repository(msgspec.Struct):
    repo_full_name: Text | None = None


class _Data(msgspec.Struct):
    resources: Annotated[list[_Resource], msgspec.Meta(max_length=CHANGES_MAX)] | None = None
    repository: _Repository | None = None


class _Notice(msgspec.Struct):
    type: Text
    event_data: _Data | None = None


class Harbor:
    """A Harbor registry, in its default payload format."""

    name = "harbor"

    def sent(self, headers: Headers) -> bool:
        """Whoever sends a token so and is nobody else."""
        return "Authorization" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        check_token(authorization(headers), secrets, what="the token in Authorization")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:  # noqa: ARG002 - they say nothing
        """See `Forge`. There is no id: no two deliveries are known to be the same."""
        notice = decode(document, _Notice)
        if notice.type not in _PUSHED or notice.event_data is None:
            return OtherEvent(self.name, "", plain(notice.type))
        data = notice.event_data
        resources = data.resources or []
        full = data.repository.repo_full_name if data.repository is not None else None
        names = tuple(name for name in (full, *(r.resource_url for r in resources)) if name)
        last = resources[-1] if resources else _Resource()
        return ArtifactEvent(self.name, "", names, last.tag or "", last.digest or "")
