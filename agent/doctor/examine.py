"""The whole examination, by a running agent or, without one, by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agent.config import Settings
from agent.doctor import access
from agent.doctor.findings import Finding
from agent.doctor.kernel import kernel
from agent.doctor.machine import machine
from agent.doctor.signers import signers
from agent.domain.spec import ArtifactSpec


async def examine(
    settings: Settings,
    wanted: Mapping[str, ArtifactSpec] | None = None,
    reach: access.Reach | None = None,
) -> Mapping[str, Any]:
    """All findings, as JSON. `wanted` are artifacts by app, `reach` opens one."""
    here = asyncio.to_thread(lambda: [*kernel(), *machine(settings), *signers(settings)])
    found: list[Finding] = [*await here, *await access.repository(settings)]
    if wanted and reach is not None:
        found += await access.artifacts(wanted, reach)
    return {"findings": [finding.as_json() for finding in found]}
