"""Cosign's signatures of what lies in a registry, which speak of the digest of its manifest.

| where | by whom |
|---|---|
| the tag `sha256-HEX.sig` | cosign 1 and 2, skopeo, buildah |
| what refers to the manifest (OCI 1.1), as the registry lists it | cosign 3 |
| the same, as clients list it under the tag `sha256-HEX` (where registries keep no list) | cosign 3 |

Both lists are looked at: a registry that keeps none may answer an empty one, or anything else.

The digest is the one the artifact is pinned to: of the index, where there is one. All below it is bound by
digests of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from agent.artifact.oci.manifest import Descriptor
from agent.artifact.oci.registry import Registry, shown
from agent.domain.errors import Permanent
from agent.domain.oci_reference import Reference
from agent.kit.signatures import cosign

_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"  # with a version behind it
_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"  # what cosign 3.0 writes under the tag: the config's type
_ANNOTATION = "dev.cosignproject.cosign/signature"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST = 16  # signatures, and manifests of each list, that are looked at


class _Entry(Descriptor, frozen=True, rename="camel"):
    artifact_type: str = ""


class _Listing(msgspec.Struct, frozen=True):
    """A manifest, or an index."""

    layers: list[Descriptor] = []
    manifests: list[_Entry] = []


@dataclass(frozen=True, slots=True)
class Signed:
    """A document that was signed, and where it was; `signature` is "" where that is in the document."""

    document: bytes
    signature: str
    where: str

    def verify(self, keys: tuple[cosign.PublicKey, ...], digest: str) -> cosign.PublicKey:
        """The key that signed the manifest of this digest. Blocks. Raises Refused."""
        if self.signature:
            return cosign.verify_image(self.document, self.signature, keys, digest)
        return cosign.verify_bundle(self.document, keys, digest)


async def signatures(registry: Registry, reference: Reference, digest: str) -> AsyncIterator[Signed]:
    """The first few signatures there are of this digest, unjudged. Raises Failure."""
    left = _MOST
    async for manifest in _manifests(registry, reference, digest):
        for layer in manifest.layers[:_MOST]:
            told = layer.noted(_ANNOTATION) if layer.media_type == _SIMPLE else ""
            if not left or not (told or layer.media_type.startswith(_BUNDLE)):
                continue
            left -= 1
            try:
                document = await registry.small(reference, layer.digest, cosign.BUNDLE_MAX)
            except Permanent:  # damaged or removed: others may be good
                continue
            yield Signed(document, told, shown(reference, layer.digest))


async def _manifests(registry: Registry, reference: Reference, digest: str) -> AsyncIterator[_Listing]:
    tag = f"{digest.replace(':', '-')}.sig"
    by_tag = await _listing(registry, reference, tag)
    if by_tag is not None:
        yield by_tag
    wanted: dict[str, None] = {}
    for ask, name in ((registry.referrers, digest), (registry.manifest, digest.replace(":", "-"))):
        try:
            index = _read(await ask(reference, name))
        except Permanent:  # registries that do not know of it answer in many ways
            continue
        listed = [one.digest for one in index.manifests if _may_sign(one)]
        wanted.update(dict.fromkeys(listed[:_MOST]))
    for one in wanted:
        if (found := await _listing(registry, reference, one)) is not None:
            yield found


def _may_sign(entry: _Entry) -> bool:
    kind = entry.artifact_type
    known = kind in ("", _EMPTY, _ARTIFACT) or kind.startswith(_BUNDLE)
    return known and _DIGEST.fullmatch(entry.digest) is not None


async def _listing(registry: Registry, reference: Reference, wanted: str) -> _Listing | None:
    try:
        return _read(await registry.manifest(reference, wanted))
    except Permanent:  # not there, or damaged
        return None


def _read(data: bytes) -> _Listing:
    try:
        return msgspec.json.decode(data, type=_Listing)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _Listing()
