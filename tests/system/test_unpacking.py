"""Executables of several kinds that unpack themselves: as they come, in the default tier, once a version."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.keeper.confine import landlock
from tests.kit import one_file, sandbox
from tests.kit.box import Box
from tests.kit.ports import free_port

KINDS: dict[str, Callable[[str, Path, Path], None]] = {
    "pex": one_file.build_pex,
    "appimage": one_file.build_appimage,
    "nix": one_file.build_nix_bundle,
    "makeself": one_file.build_makeself,
}
KEPT = {"pex": "pex/unzipped_pexes/*/*", "appimage": "appimage_extracted_*", "nix": "tmpx-*"}


class Shipping(Box):
    """A box with an app of each kind; `ports` are theirs."""

    ports: dict[str, int]

    async def release(self, version: str) -> str:
        """Commit a version of all."""
        apps: dict[str, Any] = {}
        for kind in KINDS:
            file = self.artifacts / f"{kind}-{version}"
            apps[kind] = {
                "version": version,
                "artifact": {
                    "url": file.as_uri(),
                    "checksum": f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}",
                },
                "run": {"command": [f"bin/{kind}"]},
                "dirs": {"cache": "cache"},
                "listen": self.ports[kind],
                "health": {"http": "/", "interval": "100ms", "deadline": "60s", "probation": "100ms"},
            }
        # Of a user without a home; it is where they unpack themselves else.
        apps["nix"]["run"]["user"] = "dynamic"
        if version == "2.0" and landlock.version() >= 1:
            for kind in ("appimage", "makeself"):
                apps[kind]["run"]["isolation"] = "strict"
        return await self.commit({"schema": 1, "apps": apps})

    async def build(self) -> None:
        """Make all files."""
        async with asyncio.TaskGroup() as group:
            for kind, build in KINDS.items():
                for version in ("1.0", "2.0"):
                    work = self.directory / f"work-{kind}-{version}"
                    work.mkdir()
                    file = self.artifacts / f"{kind}-{version}"
                    group.create_task(asyncio.to_thread(build, version, work, file))

    async def all_proven(self, version: str) -> None:
        """Until all run at this version, and say so."""
        async with aiohttp.ClientSession() as session:
            for kind, port in self.ports.items():
                await self.app_is(kind, state="running", current__version=version, good__version=version)
                async with session.get(f"http://127.0.0.1:{port}/") as answer:
                    assert await answer.text() == f"hello from {version}\n", kind

    def unpacked(self) -> dict[str, dict[Path, tuple[int, int]]]:
        """What lies in each cache, with inode and time."""
        return {
            kind: {
                path: (path.stat().st_ino, path.stat().st_mtime_ns)
                for path in (self.data / f"apps/{kind}/dirs/cache").glob(pattern)
                if path.is_dir()
            }
            for kind, pattern in KEPT.items()
        }


@pytest.fixture
async def shipping() -> AsyncIterator[Shipping]:
    directory = Path(tempfile.mkdtemp(prefix="emptybox-unpacking-"))  # which every user can enter
    directory.chmod(0o755)
    try:
        async with Shipping(directory) as box:
            box.ports = {kind: free_port() for kind in KINDS}
            yield box
    finally:
        shutil.rmtree(directory)


async def test_each_kind_runs_as_it_comes_and_unpacks_itself_once_a_version(shipping: Shipping) -> None:
    sandbox.as_root()
    await shipping.build()
    await shipping.release("1.0")
    await shipping.start()
    await shipping.all_proven("1.0")
    for kind in KINDS:
        app = await shipping.app(kind)
        assert app["child"]["isolation"]["tier"] == "standard"
    first = shipping.unpacked()
    assert {kind: len(found) for kind, found in first.items()} == dict.fromkeys(KEPT, 1)

    await shipping.webhook(await shipping.release("2.0"))
    await shipping.all_proven("2.0")
    both = shipping.unpacked()
    assert {kind: len(found) for kind, found in both.items()} == dict.fromkeys(KEPT, 2)

    await shipping.webhook(await shipping.release("1.0"))
    await shipping.all_proven("1.0")
    assert shipping.unpacked() == both, "what was unpacked before is used again, and nothing more"
    for kind, found in first.items():
        assert found.items() <= both[kind].items()
