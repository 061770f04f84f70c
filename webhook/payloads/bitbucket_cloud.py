"""Bitbucket Cloud: X-Event-Key, X-Hook-UUID, X-Hub-Signature: sha256=<hex> over the raw body.

One push may change several refs, or none that it names.
https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from webhook.event import Event, OtherEvent, Pushes, PushEvent
from webhook.payloads.forge import CHANGES_MAX, Headers, word
from webhook.payloads.push import Text, decode, is_commit
from webhook.signature import check_prefixed

_FOLDERS = {"branch": "refs/heads/", "named_branch": "refs/heads/", "bookmark": "refs/heads/"}


class _Target(msgspec.Struct):
    hash: Text | None = None


class _Ref(msgspec.Struct):
    name: Text
    type: Text
    target: _Target | None = None

    @property
    def full(self) -> str:
        return _FOLDERS.get(self.type, "refs/tags/") + self.name

    @property
    def commit(self) -> str:
        found = self.target.hash if self.target is not None else None
        return found if found is not None and is_commit(found) else ""


class _Change(msgspec.Struct):
    new: _Ref | None = None
    old: _Ref | None = None


class _Push(msgspec.Struct):
    changes: Annotated[list[_Change], msgspec.Meta(max_length=CHANGES_MAX)]


class _Link(msgspec.Struct):
    href: Text | None = None


class _Links(msgspec.Struct):
    html: _Link | None = None


class _Branch(msgspec.Struct):
    name: Text | None = None


class _Repository(msgspec.Struct):
    full_name: Text | None = None
    links: _Links | None = None
    mainbranch: _Branch | None = None

    @property
    def names(self) -> tuple[str, ...]:
        html = self.links.html.href if self.links is not None and self.links.html is not None else None
        return tuple(name for name in (self.full_name, html) if name)


class _Document(msgspec.Struct):
    push: _Push
    repository: _Repository


class BitbucketCloud:
    """bitbucket.org."""

    name = "bitbucket-cloud"

    def sent(self, headers: Headers) -> bool:
        """See `Forge`."""
        return "X-Event-Key" in headers and "X-Hook-UUID" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        check_prefixed(body, headers.get("X-Hub-Signature"), secrets, header="X-Hub-Signature")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        event, delivery = word(headers, "X-Event-Key"), word(headers, "X-Request-UUID")
        if event != "repo:push":
            return OtherEvent(self.name, delivery, event)
        told = decode(document, _Document)
        repository = told.repository
        default = repository.mainbranch.name if repository.mainbranch is not None else None
        changes = []
        for change in told.push.changes:
            ref = change.new or change.old
            if ref is None:
                continue
            changes.append(
                PushEvent(
                    forge=self.name,
                    delivery=delivery,
                    repositories=repository.names,
                    ref=ref.full,
                    before=change.old.commit if change.old is not None else "",
                    after=change.new.commit or None if change.new is not None else None,
                    deleted=change.new is None,
                    default_branch=default or "",
                )
            )
        return Pushes(self.name, delivery, tuple(changes))
