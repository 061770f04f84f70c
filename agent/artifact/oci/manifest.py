"""Manifests and indexes (OCI Image Specification 1.1, Docker's schema 2), and what to fetch of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from agent.artifact.limits import Limits
from agent.artifact.oci.problems import broken, unsupported
from agent.domain.errors import Permanent

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # of ORAS before 1.1
ACCEPTED = ", ".join((IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST, ARTIFACT))

_INDEXES = (INDEX, DOCKER_LIST)
_MOST_LAYERS = 256
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"


class Platform(msgspec.Struct, frozen=True):
    """What an entry of an index is for."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A reference to bytes by their digest."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    def noted(self, key: str) -> str:
        """An annotation, "" when there is none."""
        return (self.annotations or {}).get(key, "")


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """Any of the documents: what it has tells which it is."""

    schema_version: int = 2
    media_type: str = ""
    manifests: list[Descriptor] | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """Bytes to fetch: an archive of a layer, or with a `title` one file of that name."""

    digest: str
    size: int
    title: str = ""


def read(data: bytes, where: str, limits: Limits) -> tuple[list[Descriptor] | None, list[Layer]]:
    """The entries of an index, or (None, the layers of a manifest, lowest first). Raises Permanent."""
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise broken(f"not a manifest: {error}", where) from None
    if document.schema_version != 2:
        raise unsupported("a manifest of Docker's schema 1", where, "push it again with a tool of today")
    if document.manifests is not None:
        if document.layers is not None or document.blobs is not None:
            raise broken("the manifest is an index as well", where)
        return [_sound(entry, where) for entry in document.manifests], []
    listed = document.layers if document.layers is not None else document.blobs
    if listed is None or document.media_type in _INDEXES:
        raise broken("the manifest has no layers", where)
    if not 0 < len(listed) <= _MOST_LAYERS:
        raise broken(f"{len(listed)} layers, where 1 to {_MOST_LAYERS} are allowed", where)
    layers = [_layer(_sound(one, where)) for one in listed]
    total = sum(layer.size for layer in layers)
    if total > limits.body:
        raise Permanent("ArtifactTooLarge", f"{total} bytes, where {limits.body} are allowed", where=where)
    return None, layers


def choose(entries: list[Descriptor], os: str, architecture: str, where: str) -> Descriptor:
    """The entry of an index for this platform; the first, when several fit. Raises Permanent."""
    for entry in entries:
        platform = entry.platform
        if platform is not None and (platform.os, platform.architecture) == (os, architecture):
            return entry
    if len(entries) == 1 and entries[0].platform is None:
        return entries[0]
    there = sorted(
        {str(e.platform) for e in entries if e.platform is not None and e.platform.os != "unknown"}
    )
    raise Permanent(
        "PlatformMissing",
        f"nothing for {os}/{architecture}; there is {', '.join(there[:16]) or 'nothing for any platform'}",
        where=where,
        remedy="push it for this platform, or keep the app away from this host with `only`",
    )


def _sound(descriptor: Descriptor, where: str) -> Descriptor:
    if not _DIGEST.match(descriptor.digest) or descriptor.size < 0:
        raise broken("the manifest has a malformed digest or size", where)
    return descriptor


def _layer(descriptor: Descriptor) -> Layer:
    title = "" if descriptor.noted(_UNPACK) == "true" else descriptor.noted(_TITLE)
    return Layer(descriptor.digest, descriptor.size, title)
