"""A box for each test, which shows what its agent said when the test fails."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.kit.box import Box
from tests.kit.image import Image, built, need

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image, built once for all tests of the group "image"."""
    need("debootstrap", "buildah", "runc")
    directory = Path(tempfile.mkdtemp(prefix="emptybox-image-"))
    directory.chmod(0o755)
    try:
        with built(directory) as image:
            yield image
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def box(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Box]:
    async with Box(tmp_path) as box:
        yield box
        if request.node.stash.get(FAILED, False):
            print("\n".join(box.output[-400:]))
