"""The push document in GitHub's shape, which Gogs took over and Gitea and Forgejo inherited.

Only what is needed is decoded; the rest is skipped without being built, whatever its size.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from webhook.event import PushEvent
from webhook.payloads.forge import PayloadInvalid

Text = Annotated[str, msgspec.Meta(max_length=1024)]
T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Repository(msgspec.Struct):
    """The names of the repository."""

    full_name: Text | None = None
    clone_url: Text | None = None
    ssh_url: Text | None = None
    html_url: Text | None = None
    default_branch: Text | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are given."""
        return tuple(n for n in (self.full_name, self.clone_url, self.ssh_url, self.html_url) if n)


class _Commit(msgspec.Struct):
    id: Text | None = None


class _Push(msgspec.Struct):
    ref: Text
    after: Text
    repository: Repository
    before: Text | None = None
    deleted: bool | None = None
    head_commit: _Commit | None = None


def decode(document: bytes, shape: type[T]) -> T:
    """`document` as `shape`. Raises PayloadInvalid, also for nesting without end."""
    try:
        return msgspec.json.decode(document, type=shape)
    except msgspec.ValidationError as error:
        raise PayloadInvalid(f"the document is not in this forge's shape: {error}") from None
    except (ValueError, RecursionError):
        raise PayloadInvalid("the body is not JSON") from None


def is_commit(text: str) -> bool:
    """Whether `text` is a full commit id, SHA-1 or SHA-256, in lower case."""
    return _COMMIT.fullmatch(text) is not None


def read_push(document: bytes, *, forge: str, delivery: str) -> PushEvent:
    """A push. Raises PayloadInvalid."""
    push = decode(document, _Push)
    if not is_commit(push.after):
        raise PayloadInvalid("the document is not in this forge's shape: `after` is not a commit id")
    deleted = bool(push.deleted) or not push.after.strip("0")
    return PushEvent(
        forge=forge,
        delivery=delivery,
        repositories=push.repository.names,
        ref=push.ref,
        before=push.before or "",
        after=None if deleted else _commit_of(push),
        deleted=deleted,
        default_branch=push.repository.default_branch or "",
    )


def _commit_of(push: _Push) -> str:
    """The commit: of an annotated tag `after` is the tag's own id, and `head_commit` what it points at."""
    head = push.head_commit.id if push.head_commit else None
    return head if push.ref.startswith("refs/tags/") and head and is_commit(head) else push.after
