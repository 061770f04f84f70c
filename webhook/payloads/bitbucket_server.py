"""Bitbucket Server and Data Center: X-Event-Key, X-Request-Id, X-Hub-Signature: sha256=<hex>.

"Test connection" sends the event diagnostics:ping. One push may change several refs.
https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from webhook.event import Event, OtherEvent, Ping, Pushes, PushEvent
from webhook.payloads.forge import CHANGES_MAX, Headers, word
from webhook.payloads.push import Text, decode, is_commit
from webhook.signature import check_prefixed


class _Ref(msgspec.Struct):
    id: Text


class _Change(msgspec.Struct):
    ref: _Ref
    type: Text | None = None
    fromHash: Text | None = None
    toHash: Text | None = None


class _Link(msgspec.Struct):
    href: Text | None = None


class _Links(msgspec.Struct):
    clone: Annotated[list[_Link], msgspec.Meta(max_length=100)] | None = None


class _Project(msgspec.Struct):
    key: Text | None = None


class _Repository(msgspec.Struct):
    slug: Text | None = None
    project: _Project | None = None
    links: _Links | None = None

    @property
    def names(self) -> tuple[str, ...]:
        key = self.project.key if self.project is not None else None
        clones = self.links.clone if self.links is not None and self.links.clone else []
        own = (f"{key}/{self.slug}",) if key and self.slug else ()
        return (*own, *(link.href for link in clones if link.href))


class _Document(msgspec.Struct):
    repository: _Repository
    changes: Annotated[list[_Change], msgspec.Meta(max_length=CHANGES_MAX)]


class BitbucketServer:
    """A Bitbucket of one's own."""

    name = "bitbucket-server"

    def sent(self, headers: Headers) -> bool:
        """Bitbucket Cloud sends this header too: it is asked before."""
        return "X-Event-Key" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        check_prefixed(body, headers.get("X-Hub-Signature"), secrets, header="X-Hub-Signature")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        event, delivery = word(headers, "X-Event-Key"), word(headers, "X-Request-Id")
        if event == "diagnostics:ping":
            return Ping(self.name, delivery)
        if event != "repo:refs_changed":
            return OtherEvent(self.name, delivery, event)
        told = decode(document, _Document)
        changes = tuple(self._change(delivery, told.repository, change) for change in told.changes)
        return Pushes(self.name, delivery, changes)

    def _change(self, delivery: str, repository: _Repository, change: _Change) -> PushEvent:
        to = change.toHash if change.toHash and is_commit(change.toHash) else ""
        deleted = change.type == "DELETE" or not to.strip("0")
        return PushEvent(
            forge=self.name,
            delivery=delivery,
            repositories=repository.names,
            ref=change.ref.id,
            before=change.fromHash or "",
            after=None if deleted else to,
            deleted=deleted,
        )
