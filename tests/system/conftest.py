"""A box for each test, which shows what its agent said when the test fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.kit.box import Box

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
async def box(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Box]:
    async with Box(tmp_path) as box:
        yield box
        if request.node.stash.get(FAILED, False):
            print("\n".join(box.output[-400:]))
