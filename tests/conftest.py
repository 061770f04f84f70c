"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Machines are noisy: no example fails for being slow. In CI the examples are the same each time.
settings.register_profile(
    "emptybox",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("emptybox")
