"""Specifications and archives that the tests deliver, and patience."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random

from agent.domain.artifact_spec import ArtifactSpec, Checksum
from tests.kit.archives import Tar


def spec(
    url: str, data: bytes | None = None, *, strip: int = 0, archive: str = "auto", name: str = ""
) -> ArtifactSpec:
    """The specification of `data` at `url`; without data its checksum is not known."""
    digest = hashlib.sha256(data).hexdigest() if data is not None else ""
    checksum = Checksum(algorithm="sha256", hex=digest)
    return ArtifactSpec(url=url, checksum=checksum, strip=strip, archive=archive, plain_name=name)


def release(content: bytes = b"1.0", size: int = 10_000) -> bytes:
    """A tar.gz of a small program with `content` in it."""
    noise = random.Random(content).randbytes(size)
    return gzip.compress(Tar().file("bin/web", content, mode=0o755).file("share/noise", noise).end(), 1)


def big(size: int) -> bytes:
    """A tar of one incompressible file of `size` bytes."""
    return Tar().file("noise", os.urandom(size)).end()


async def soon(event: asyncio.Event) -> None:
    """Wait for it, with a deadline."""
    async with asyncio.timeout(30):
        await event.wait()
