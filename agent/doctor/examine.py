"""The whole examination, by a running agent or, without one, by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.config import Settings
from agent.doctor import access
from agent.doctor.findings import Finding
from agent.doctor.kernel import kernel
from agent.doctor.machine import machine


async def examine(
    settings: Settings,
    urls: Mapping[str, str] | None = None,
    reach: Callable[[str], Awaitable[int | None]] | None = None,
) -> Mapping[str, Any]:
    """All findings, as JSON. `urls` are artifacts by app, `reach` opens one (see `access.artifacts`)."""
    here = asyncio.to_thread(lambda: [*kernel(), *machine(settings)])
    found: list[Finding] = [*await here, *await access.repository(settings)]
    if urls and reach is not None:
        found += await access.artifacts(urls, reach)
    return {"findings": [finding.as_json() for finding in found]}
