"""Azure DevOps: signs nothing and names itself by no header; HTTP basic authentication is what tells it.

The password is the secret (or the whole `user:password` is). The delivery's id is in the body. One push may
update several refs, or none. https://learn.microsoft.com/azure/devops/service-hooks/events#git.push
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated

import msgspec

from webhook.event import Event, OtherEvent, Pushes, PushEvent
from webhook.payloads.forge import CHANGES_MAX, Headers, PayloadInvalid, plain
from webhook.payloads.push import Text, decode, is_commit
from webhook.signature import TokenRefused, check_token

_SCHEME = "basic "
_NONE = "0" * 40


class _Update(msgspec.Struct):
    name: Text
    oldObjectId: Text | None = None
    newObjectId: Text | None = None


class _Project(msgspec.Struct):
    name: Text | None = None


class _Repository(msgspec.Struct):
    name: Text | None = None
    remoteUrl: Text | None = None
    defaultBranch: Text | None = None
    project: _Project | None = None

    @property
    def names(self) -> tuple[str, ...]:
        project = self.project.name if self.project is not None else None
        full = f"{project}/{self.name}" if project and self.name else None
        return tuple(name for name in (full, self.remoteUrl) if name)


class _Resource(msgspec.Struct):
    refUpdates: Annotated[list[_Update], msgspec.Meta(max_length=CHANGES_MAX)] | None = None
    repository: _Repository | None = None


class _Notice(msgspec.Struct):
    eventType: Text
    id: Text | None = None
    resource: _Resource | None = None


class AzureDevOps:
    """Azure Repos, in the cloud or one's own."""

    name = "azure-devops"

    def sent(self, headers: Headers) -> bool:
        """Whoever authenticates so and is nobody else."""
        return headers.get("Authorization", "")[: len(_SCHEME)].lower() == _SCHEME

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        try:
            pair = base64.b64decode(headers.get("Authorization", "")[len(_SCHEME) :].strip(), validate=True)
        except (ValueError, binascii.Error):
            raise TokenRefused("TokenWrong", "Authorization is not base64", "Basic") from None
        password = pair.partition(b":")[2]
        whole, last = (part.decode(errors="surrogateescape") for part in (pair, password))
        try:
            check_token(last, secrets, what="the password", challenge="Basic")
        except TokenRefused:
            check_token(whole, secrets, what="the password", challenge="Basic")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:  # noqa: ARG002 - they say nothing
        """See `Forge`."""
        notice = decode(document, _Notice)
        delivery = plain(notice.id or "")
        if notice.eventType != "git.push":
            return OtherEvent(self.name, delivery, plain(notice.eventType))
        if notice.resource is None or notice.resource.repository is None:
            raise PayloadInvalid(
                "the document is not in this forge's shape: `resource.repository` is missing"
            )
        repository = notice.resource.repository
        changes = tuple(self._change(delivery, repository, u) for u in notice.resource.refUpdates or ())
        return Pushes(self.name, delivery, changes)

    def _change(self, delivery: str, repository: _Repository, update: _Update) -> PushEvent:
        to = update.newObjectId if update.newObjectId and is_commit(update.newObjectId) else ""
        deleted = not to.strip("0")
        return PushEvent(
            forge=self.name,
            delivery=delivery,
            repositories=repository.names,
            ref=update.name,
            before=update.oldObjectId or _NONE,
            after=None if deleted else to,
            deleted=deleted,
            default_branch=(repository.defaultBranch or "").removeprefix("refs/heads/"),
        )
