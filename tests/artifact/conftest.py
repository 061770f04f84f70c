from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from tests.kit.artifact_server import ArtifactServer

STATUSES = (204, 304, 400, 401, 403, 404, 407, 410, 418, 500)
LOCATIONS = """
location /slow/ { alias %s/; limit_rate_after 1300k; limit_rate 400k; }
location = /503 { add_header Retry-After 7 always; return 503; }
location = /429 { add_header Retry-After 'Thu, 01 Jan 1970 00:00:00 GMT' always; return 429; }
location = /loop { return 302 /loop; }
location = /moved { return 301 /small; }
location = /ftp { return 302 ftp://127.0.0.1/small; }
location = /nowhere { return 302 ''; }
""" + "".join(f"location = /status/{code} {{ return {code}; }}\n" for code in STATUSES)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ArtifactServer]:
    """A real nginx; /slow/NAME serves NAME slowly after its first 1.3 MB."""
    locations = LOCATIONS.replace("%s", str(tmp_path / "artifacts"))
    async with ArtifactServer(tmp_path, locations=locations) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
async def artifacts(store: Store, tmp_path: Path) -> AsyncIterator[Artifacts]:
    async with Artifacts(store, file_roots=[tmp_path / "files"]) as running:
        yield running
    assert_no_traces(store)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("artifact")] == []


def assert_no_traces(store: Store) -> None:
    """Nothing half done is on disk."""
    assert list((store.root / "tmp").iterdir()) == []
