"""Signatures of images in a real registry, in cosign's formats.

They are made with the cryptography library: no package has cosign, and Debian's skopeo cannot sign so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.artifact.trust.rules import Rules
from agent.domain.artifact_spec import ArtifactSpec, Checksum, SignatureSpec
from agent.domain.errors import Permanent
from tests.artifact.oci.conftest import artifacts, registry
from tests.kit.archives import Tar
from tests.kit.cosigning import BUNDLE, SIMPLE, CosignKey
from tests.kit.registry import IMAGE, INDEX, Registry, layout

__all__ = ["artifacts", "registry"]  # fixtures
TAR = Tar().file("bin/web", b"1.0", mode=0o755).end()


def wanted(registry: Registry, digest: str, key: CosignKey | None = None) -> ArtifactSpec:
    signature = SignatureSpec(kind="cosign", keys=key.public) if key is not None else None
    checksum = Checksum(algorithm="sha256", hex=digest.removeprefix("sha256:"))
    return ArtifactSpec(url=f"oci://{registry.host}/team/app:1", checksum=checksum, signature=signature)


async def deliver(artifacts: Artifacts, spec: ArtifactSpec) -> Path:
    async with artifacts.deliver(spec, "web") as delivery:
        return await delivery.published()


async def refused(artifacts: Artifacts, spec: ArtifactSpec) -> Permanent:
    async with artifacts.deliver(spec, "web") as delivery:
        with pytest.raises(Permanent) as caught:
            await delivery.published()
        assert not artifacts.store.has(delivery.release)
    return caught.value


async def push(registry: Registry, base: Path, *more: str) -> str:
    return await registry.copy(await layout(base, [TAR]), "team/app:1", *more)


async def attach(registry: Registry, digest: str, layers: Sequence[tuple[bytes, str, str]]) -> None:
    """What cosign 2 puts under the tag: documents with their signatures."""
    described = [
        {
            **await registry.blob("team/app", document),
            "mediaType": kind,
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        }
        for document, signature, kind in layers
    ]
    config = await registry.blob("team/app", b"{}")
    manifest = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": described}
    await registry.manifest("team/app", digest.replace(":", "-") + ".sig", manifest)


async def refer(registry: Registry, digest: str, *bundles: bytes, listed: str = BUNDLE) -> None:
    """What cosign 3 attaches where a registry has no list of referrers: an index under a tag.

    `listed` is the type that the index tells.
    """
    entries = []
    for bundle in bundles:
        layer = {**await registry.blob("team/app", bundle), "mediaType": BUNDLE}
        config = await registry.blob("team/app", b"{}")
        subject = {"mediaType": IMAGE, "digest": digest, "size": 1}
        document = {
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": BUNDLE,
            "config": {**config, "mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": [layer], "subject": subject,
        }  # fmt: skip
        tag = "x" + hashlib.sha256(bundle).hexdigest()[:16]
        found = await registry.manifest("team/app", tag, document)
        entries.append({"mediaType": IMAGE, "digest": found, "size": 1, "artifactType": listed})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    await registry.manifest("team/app", digest.replace(":", "-"), index)


async def test_a_signature_in_the_format_of_cosign_2_is_found_by_its_tag(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    key = CosignKey()
    digest = await push(registry, tmp_path)
    await attach(registry, digest, [(*key.document(digest), SIMPLE)])
    spec = wanted(registry, digest, key)
    assert ((await deliver(artifacts, spec)) / "bin/web").read_bytes() == b"1.0"
    assert artifacts.signatures.signers(spec).startswith("cosign SHA256:")


async def test_a_signature_in_the_format_of_cosign_3_is_found_by_what_refers_to_the_image(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    key = CosignKey()
    digest = await push(registry, tmp_path)
    await refer(registry, digest, CosignKey().statement(digest), key.statement(digest))
    await deliver(artifacts, wanted(registry, digest, key))


async def test_a_signature_is_found_also_where_cosign_3_0_told_the_type_of_its_config_instead(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    """See sigstore/cosign 4641, 4422: so it wrote the index under the tag until September 2026."""
    key = CosignKey()
    digest = await push(registry, tmp_path)
    await refer(registry, digest, key.statement(digest), listed="application/vnd.oci.empty.v1+json")
    await deliver(artifacts, wanted(registry, digest, key))


async def test_nothing_of_an_unsigned_image_is_fetched(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    digest = await push(registry, tmp_path)
    failure = await refused(artifacts, wanted(registry, digest, CosignKey()))
    assert failure.reason == "ArtifactUnsigned"
    assert registry.asked("GET", "/blobs/") == []


async def test_what_signs_another_image_or_by_another_key_or_is_something_else_does_not_count(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    key, stranger = CosignKey(), CosignKey()
    digest, other = await push(registry, tmp_path), "sha256:" + "ab" * 32
    elsewhere, by_stranger = key.document(other), stranger.document(digest)
    layers = [(*elsewhere, SIMPLE), (*by_stranger, SIMPLE), (*key.document(digest), "text/plain")]
    await attach(registry, digest, layers)
    await refer(registry, digest, key.statement(digest, kind="https://spdx.dev/Document"))
    failure = await refused(artifacts, wanted(registry, digest, key))
    assert failure.reason == "ArtifactSignatureRefused"
    assert all(words in str(failure) for words in ("another image", "none of the keys", "another statement"))


async def test_a_good_signature_among_bad_ones_counts(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    key = CosignKey()
    digest = await push(registry, tmp_path)
    damaged, good = CosignKey().document(digest, kind="x"), key.document(digest)
    await attach(registry, digest, [(*damaged, SIMPLE), (*good, SIMPLE)])
    registry.damage("sha256:" + hashlib.sha256(damaged[0]).hexdigest())
    await deliver(artifacts, wanted(registry, digest, key))


async def test_the_settings_may_ask_for_signatures_of_a_registry_s_images(
    store: Store, registry: Registry, tmp_path: Path
) -> None:
    key = CosignKey()
    (tmp_path / "cosign.pub").write_text(key.public)
    digest = await push(registry, tmp_path)
    rules = Rules([(f"oci://{registry.host}/team/", tmp_path / "cosign.pub")])
    async with Artifacts(store, insecure_registries=[registry.host], rules=rules) as artifacts:
        assert (await refused(artifacts, wanted(registry, digest))).reason == "ArtifactUnsigned"
        await attach(registry, digest, [(*key.document(digest), SIMPLE)])
        tagged = msgspec.structs.replace(wanted(registry, digest), checksum=Checksum(algorithm="sha256"))
        await deliver(artifacts, await artifacts.pin(tagged))
