"""GitLab: X-Gitlab-Event; X-Gitlab-Token in the open, or a signature by Standard Webhooks.

A delivery with a signature is judged by that alone as soon as a `whsec_` secret is configured: its id and
time are signed, too, so a replay is noticed. X-Gitlab-Token proves the sender and nothing about the body.
https://docs.gitlab.com/user/project/integrations/webhooks/
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from webhook.event import ArtifactEvent, Event, OtherEvent, PushEvent
from webhook.payloads import form
from webhook.payloads.forge import Headers, PayloadInvalid, word
from webhook.payloads.push import Text, decode, is_commit
from webhook.signature import check_standard, check_token

_PUSHES = ("push", "tag_push")


class _Project(msgspec.Struct):
    path_with_namespace: Text | None = None
    git_http_url: Text | None = None
    git_ssh_url: Text | None = None
    web_url: Text | None = None
    default_branch: Text | None = None

    @property
    def names(self) -> tuple[str, ...]:
        told = (self.path_with_namespace, self.git_http_url, self.git_ssh_url, self.web_url)
        return tuple(name for name in told if name)


class _Hook(msgspec.Struct):
    object_kind: Text | None = None
    event_name: Text | None = None
    project: _Project | None = None
    ref: Text | None = None
    before: Text | None = None
    after: Text | None = None
    checkout_sha: Text | None = None
    action: Text | None = None
    tag: Text | None = None


class GitLab:
    """GitLab, in the cloud or one's own; hooks of projects, of groups and of the system."""

    name = "gitlab"

    def sent(self, headers: Headers) -> bool:
        """See `Forge`."""
        return "X-Gitlab-Event" in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        signed = headers.get("webhook-signature", "")
        if signed and any(secret.startswith(b"whsec_") for secret in secrets):
            check_standard(headers, body, secrets)
        else:
            token = headers.get("X-Gitlab-Token")
            check_token(token, secrets, what="X-Gitlab-Token", challenge="GitLab-Token")
        return form.payload(body) if form.is_form(headers) else body

    def read(self, headers: Headers, document: bytes) -> Event:
        """See `Forge`."""
        delivery = word(headers, "webhook-id") or word(headers, "Idempotency-Key")
        delivery = delivery or word(headers, "X-Gitlab-Event-UUID")
        hook = decode(document, _Hook)
        kind = hook.object_kind or hook.event_name or ""
        project = hook.project or _Project()
        if kind == "release" and hook.action == "create":
            return ArtifactEvent(self.name, delivery, project.names, hook.tag or "")
        if kind not in _PUSHES:
            name = headers.get("X-Gitlab-Event", "")
            return OtherEvent(self.name, delivery, name if name.isascii() and name.isprintable() else "")
        if hook.ref is None or hook.after is None or not is_commit(hook.after):
            raise PayloadInvalid("the document is not in this forge's shape: `ref` or `after` is missing")
        deleted = not hook.after.strip("0")
        commit = hook.checkout_sha if hook.checkout_sha and is_commit(hook.checkout_sha) else hook.after
        return PushEvent(
            forge=self.name,
            delivery=delivery,
            repositories=project.names,
            ref=hook.ref,
            before=hook.before or "",
            after=None if deleted else commit,
            deleted=deleted,
            default_branch=project.default_branch or "",
        )
