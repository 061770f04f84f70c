"""What sigstore's own libraries sign with a key, and attach to images in a real registry, is understood.

The registry (docker-registry) keeps no list of what refers to an image: the libraries keep one under a tag;
a registry that has a list is this one behind nginx, which answers for it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import aiohttp
import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum, SignatureSpec
from agent.domain.errors import Permanent
from agent.kit.signatures import cosign
from agent.kit.signatures.refused import Refused
from tests.artifact.oci.conftest import artifacts, registry
from tests.kit.archives import Tar
from tests.kit.artifact_server import ArtifactServer
from tests.kit.registry import INDEX, Registry, layout
from tests.kit.sigstore import SIGNATURE, sign

__all__ = ["artifacts", "registry"]  # fixtures
EMPTY = f'{{"schemaVersion": 2, "mediaType": "{INDEX}", "manifests": []}}'
STRANGE = EMPTY.replace("[]", f'[{{"digest": "md9:{"ab" * 32}", "size": 2}}]')


def wanted(host: str, digest: str, public: str) -> ArtifactSpec:
    return ArtifactSpec(
        url=f"oci://{host}/team/app:1",
        checksum=Checksum(algorithm="sha256", hex=digest.removeprefix("sha256:")),
        signature=SignatureSpec(kind="cosign", keys=public),
    )


async def push(registry: Registry, base: Path, tag: str) -> str:
    tar = Tar().file("bin/web", tag.encode(), mode=0o755).end()
    return await registry.copy(await layout(base, [tar], tag), f"team/app:{tag}")


async def deliver(artifacts: Artifacts, spec: ArtifactSpec) -> bytes:
    async with artifacts.deliver(spec, "web") as delivery:
        return ((await delivery.published()) / "bin/web").read_bytes()


async def test_signatures_and_bundles_of_files_by_sigstores_libraries_count_for_those_files_only(
    tmp_path: Path,
) -> None:
    file = tmp_path / "web.tar.gz"
    file.write_bytes(b"1.0")
    made = await sign(file)
    keys = cosign.parse_keys(made.public)
    for signature in (made.signature, made.bundle):
        assert cosign.verify_file(signature, keys, hashlib.sha256(b"1.0").digest()) == keys[0]
        with pytest.raises(Refused):
            cosign.verify_file(signature, keys, hashlib.sha256(b"2.0").digest())


async def test_what_sigstores_libraries_attach_to_an_image_counts_if_it_is_a_signature(
    artifacts: Artifacts, registry: Registry, tmp_path: Path
) -> None:
    signed, attested = await push(registry, tmp_path, "1"), await push(registry, tmp_path, "2")
    name = f"{registry.host}/team/app"
    statement = "https://spdx.dev/Document"
    (tmp_path / "file").touch()
    images = [(name, signed, statement), (name, signed, SIGNATURE), (name, attested, statement)]
    made = await sign(tmp_path / "file", images)
    assert await deliver(artifacts, wanted(registry.host, signed, made.public)) == b"1"
    with pytest.raises(Permanent) as caught:
        await deliver(artifacts, wanted(registry.host, attested, made.public))
    assert caught.value.reason == "ArtifactSignatureRefused"
    assert "another statement" in str(caught.value)


@pytest.mark.parametrize("answer", ["listed", "empty", "strange", "page"])
async def test_signatures_are_found_by_the_list_of_the_registry_and_by_the_tag_that_clients_keep(
    answer: str, registry: Registry, store: Store, tmp_path: Path
) -> None:
    """listed: the registry lists them, and there is no tag; else there is, and the registry lists nothing."""
    digest = await push(registry, tmp_path, "1")
    (tmp_path / "file").touch()
    made = await sign(tmp_path / "file", [(f"{registry.host}/team/app", digest, SIGNATURE)])
    tag = f"/v2/team/app/manifests/{digest.replace(':', '-')}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{registry.host}{tag}", headers={"Accept": INDEX}) as found:
            listed = await found.text()
    body = {"listed": listed, "empty": EMPTY, "strange": STRANGE, "page": "<html>"}[answer]
    kind = "text/html" if answer == "page" else INDEX
    locations = f"""
    location /v2/team/app/referrers/ {{ default_type {kind}; return 200 '{body}'; }}
    location /v2/team/app/manifests/md9 {{ return 200 '{{}}'; }}
    location / {{ proxy_pass http://{registry.host}; }}
    """
    if answer == "listed":
        locations += f"location = {tag} {{ return 404; }}"
    async with ArtifactServer(tmp_path, locations=locations) as front:
        host = f"127.0.0.1:{front.port}"
        async with Artifacts(store, insecure_registries=[host]) as artifacts:
            assert await deliver(artifacts, wanted(host, digest, made.public)) == b"1"
