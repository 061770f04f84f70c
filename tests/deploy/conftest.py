"""A journal, and where it lies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.deploy.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    async with await Journal.open(path) as journal:
        yield journal
