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
    """Something that moves no ref: an issue, a comment. `name` is the forge's word for it."""

    forge: str
    delivery: str
    name: str


Event = PushEvent | Ping | OtherEvent
