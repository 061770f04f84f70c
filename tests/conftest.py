"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines are noisy: no example fails for being slow. In CI the examples are the same each time.
settings.register_profile(
    "emptybox",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("emptybox")

# A shell starts what runs in its background with SIGINT ignored, and a child inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that the other workers have something to do meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
