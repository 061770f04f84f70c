"""A real smart HTTP Git server with one empty repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.git_server import Forge, Repository


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(tmp_path / "forge") as forge:
        yield forge


@pytest.fixture
async def state(forge: Forge) -> Repository:
    return await forge.repository()
