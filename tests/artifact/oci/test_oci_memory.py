"""Memory of a whole process while the layers of an image come side by side."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.artifact.test_memory import compressed
from tests.kit.registry import IMAGE, Registry

LAYER = 40 << 20
CHILD = """
import asyncio, sys
from pathlib import Path
from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from tests.kit.peak import peak

async def main():
    root, host, *rest = sys.argv[1:]
    async with Artifacts(Store(Path(root)), insecure_registries=[host]) as artifacts:
        async def deliver(name, digest):
            pinned = Checksum(algorithm="sha256", hex=digest.removeprefix("sha256:"))
            wanted = ArtifactSpec(url=f"oci://{host}/{name}", checksum=pinned)
            async with artifacts.deliver(wanted, "web") as delivery:
                await delivery.published()
        await deliver(*rest[:2])
        before = peak()
        await deliver(*rest[2:])
        print(peak() - before)

asyncio.run(main())
"""


async def pushed(registry: Registry, name: str, layers: list[bytes]) -> list[str]:
    """An image of these tar.gz; its name and digest."""
    blobs = [await registry.blob(name, data) for data in layers]
    for blob in blobs:
        blob["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    config = await registry.blob(name, b"{}")
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    document = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": blobs}
    return [name, await registry.manifest(name, "1", document)]


async def test_memory_grows_by_less_than_24_mib_while_three_layers_of_40_mib_come(
    registry: Registry, tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "store"), registry.host]
    arguments += await pushed(registry, "small", [compressed(1 << 20, 1)])
    arguments += await pushed(registry, "large", [compressed(LAYER, level) for level in (0, 0, 0)])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    assert int(output) < 24, f"{int(output)} MiB"
