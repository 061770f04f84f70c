"""Releases and packages in GitHub's shape, which Gitea and Forgejo took over in the main."""

from __future__ import annotations

import msgspec

from webhook.event import ArtifactEvent, Event, OtherEvent
from webhook.payloads.push import Repository, Text, decode

PUBLISHED = ("release", "package", "registry_package")
"""Events that may say that something can be fetched now."""

_ACTIONS = ("published", "released", "prereleased", "created", "updated")


class _Release(msgspec.Struct):
    tag_name: Text | None = None
    draft: bool | None = None


class _Tag(msgspec.Struct):
    name: Text | None = None
    digest: Text | None = None


class _Container(msgspec.Struct):
    tag: _Tag | None = None


class _Version(msgspec.Struct):
    version: Text | None = None
    package_url: Text | None = None
    container_metadata: _Container | None = None


class _Package(msgspec.Struct):
    name: Text | None = None
    namespace: Text | None = None
    html_url: Text | None = None
    version: Text | None = None
    package_version: _Version | None = None


class _Published(msgspec.Struct):
    action: Text | None = None
    repository: Repository | None = None
    release: _Release | None = None
    package: _Package | None = None
    registry_package: _Package | None = None


def read_published(document: bytes, *, forge: str, delivery: str, event: str) -> Event:
    """What was published; `OtherEvent` if it was edited or deleted, or is a draft. Raises PayloadInvalid."""
    told = decode(document, _Published)
    if told.action not in _ACTIONS or (told.release is not None and told.release.draft):
        return OtherEvent(forge, delivery, event)
    names = told.repository.names if told.repository is not None else ()
    package = told.package or told.registry_package
    if package is None:
        tag = told.release.tag_name if told.release is not None else None
        return ArtifactEvent(forge, delivery, names, tag or "")
    version = package.package_version or _Version()
    container = version.container_metadata or _Container()
    tag = (container.tag and container.tag.name) or package.version or version.version
    digest = (container.tag and container.tag.digest) or version.version or ""
    full = f"{package.namespace}/{package.name}" if package.namespace else package.name
    more = tuple(name for name in (full, version.package_url, package.html_url) if name)
    return ArtifactEvent(
        forge, delivery, (*names, *more), tag or "", digest if digest.startswith("sha256:") else ""
    )
