"""Gogs: X-Gogs-Event, X-Gogs-Signature. Sends GitHub's event header as well.

A pushed tag comes as the event `create` and a deleted ref as `delete`, never as `push`; both name the ref
without its folder. https://gogs.io/docs/features/webhook
"""

from __future__ import annotations

import msgspec

from webhook.event import Event, OtherEvent, PushEvent
from webhook.payloads.family import GogsFamily
from webhook.payloads.push import Repository, Text, decode, is_commit


class _RefChange(msgspec.Struct):
    ref: Text
    ref_type: Text
    repository: Repository
    sha: Text | None = None


class Gogs(GogsFamily):
    """Gogs."""

    name = "gogs"
    prefix = "X-Gogs"

    def read_other(self, event: str, delivery: str, document: bytes) -> Event:
        """See `GogsFamily`. A created branch is left to the push that comes with it."""
        if event not in ("create", "delete"):
            return super().read_other(event, delivery, document)
        change = decode(document, _RefChange)
        if event == "create" and change.ref_type != "tag":
            return OtherEvent(self.name, delivery, event)
        folder = "refs/tags/" if change.ref_type == "tag" else "refs/heads/"
        deleted = event == "delete"
        return PushEvent(
            forge=self.name,
            delivery=delivery,
            repositories=change.repository.names,
            ref=folder + change.ref,
            before="",
            after=change.sha if not deleted and change.sha and is_commit(change.sha) else None,
            deleted=deleted,
            default_branch=change.repository.default_branch or "",
        )
