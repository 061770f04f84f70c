from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from tests.artifact.conftest import assert_no_traces
from tests.kit.registry import Registry


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """A real docker-registry that asks for no login."""
    async with Registry(tmp_path) as running:
        yield running


@pytest.fixture
async def artifacts(store: Store, registry: Registry) -> AsyncIterator[Artifacts]:
    """Artifacts that may speak plain http to `registry`."""
    async with Artifacts(store, insecure_registries=[registry.host]) as running:
        yield running
    assert_no_traces(store)
