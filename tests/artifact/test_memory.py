from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import zlib
from pathlib import Path

import pytest

from tests.kit.archives import header
from tests.kit.artifact_server import ArtifactServer
from tests.kit.odd_archives import COMPRESS
from tests.kit.zips import Zip

SIZE = 200 << 20
CHILD = """
import asyncio, sys
from pathlib import Path
import msgspec
from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import Checksum
from tests.artifact.specs import spec
from tests.kit.peak import peak

async def main():
    root, *rest = sys.argv[1:]
    async with Artifacts(Store(Path(root))) as artifacts:
        async def deliver(url, digest):
            wanted = msgspec.structs.replace(spec(url), checksum=Checksum(algorithm="sha256", hex=digest))
            async with artifacts.deliver(wanted, "web") as delivery:
                await delivery.published()
        await deliver(*rest[:2])
        before = peak()
        await deliver(*rest[2:])
        print(peak() - before)

asyncio.run(main())
"""


def compressed(size: int, level: int) -> bytes:
    """A tar.gz of one file of `size` bytes, the same noisy MiB over and over."""
    noise = os.urandom(1 << 20)
    deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
    parts = [deflate.compress(header("noise", size=size))]
    parts += [deflate.compress(noise) for _ in range(size >> 20)]
    return b"".join([*parts, deflate.compress(bytes(1024)), deflate.flush()])


def archive(name: str) -> bytes:
    """One of `SIZE` bytes, more or less."""
    if name.endswith(".gz"):
        return compressed(SIZE, 0)
    noise = os.urandom(1 << 20) * (SIZE >> 20)
    if name.endswith(".zst"):  # little of it comes in, so that much of it comes out at once
        return COMPRESS["zstd"](header("noise", size=SIZE) + noise + bytes(1024))
    return Zip().file("noise", noise, method=0).end() if name.endswith(".zip") else noise


@pytest.mark.parametrize("name", ["large.tar.gz", "large.tar.zst", "large.zip", "large"])
async def test_memory_grows_by_less_than_32_mib_while_200_mib_are_delivered(
    name: str, server: ArtifactServer, tmp_path: Path
) -> None:
    small = compressed(2 << 20, 1)
    large = archive(name)
    arguments = [str(tmp_path / "store")]
    for file, data in (("small.tar.gz", small), (name, large)):
        arguments += [server.put(file, data), hashlib.sha256(data).hexdigest()]
    del large
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    assert int(output) < 32, f"{int(output)} MiB"
