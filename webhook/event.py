"""What a delivery says, once its forge has been told apart, its signature checked and its body read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PushEvent:
    """One ref of one repository moved.

    `forge` and `delivery` name the delivery ("" when the forge gave no usable id). `repositories` are the
    names the forge gives the repository: URLs and owner/name, none normalised. `ref` is a full ref name.
    `before` and `after` are commit ids in hex; `after` is None when the ref was deleted, and is the commit
    behind a tag where the forge tells it. `default_branch` is "" when the forge does not tell.
    """

    forge: str
    delivery: str
    repositories: tuple[str, ...]
    ref: str
    before: str
    after: str | None
    deleted: bool
    default_branch: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    """The forge asks whether anyone is there."""

    forge: str
    delivery: str


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """Something that calls for nothing: an issue, a comment. `name` is the forge's word for it."""

    forge: str
    delivery: str
    name: str


@dataclass(frozen=True, slots=True)
class Pushes:
    """What one delivery says of several refs of one repository, or of none."""

    forge: str
    delivery: str
    changes: tuple[PushEvent, ...]


@dataclass(frozen=True, slots=True)
class ArtifactEvent:
    """Something to deploy was published: a release, a package, an image.

    `repositories` are names and URLs of where it lies, none normalised; `tag` and `digest` are "" when the
    sender does not tell.
    """

    forge: str
    delivery: str
    repositories: tuple[str, ...]
    tag: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have changed; what, the sender does not tell."""

    forge: str
    delivery: str


Event = PushEvent | Pushes | ArtifactEvent | Hint | Ping | OtherEvent
