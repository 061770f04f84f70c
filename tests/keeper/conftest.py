"""A running keeper, and the test as its agent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.kit.keepers import Agent, KeeperProcess, keeper


@pytest.fixture
async def kept() -> AsyncIterator[KeeperProcess]:
    async with keeper() as running:
        yield running


@pytest.fixture
async def agent(kept: KeeperProcess) -> Agent:
    return await kept.agent()
