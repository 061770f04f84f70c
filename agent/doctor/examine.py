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
from agent.domain.artifact_spec import ArtifactSpec


async def examine(
    settings: Settings,
    wanted: Mapping[str, ArtifactSpec] | None = None,
    reach: access.Reach | None = None,
    *,
    elsewhere: bool = True,
) -> Mapping[str, Any]:
    """All findings, as JSON. `wanted` are artifacts by app, `reach` opens one.

    Not `elsewhere` is without a look at what may take its time: the repository and the artifacts.
    """
    found: list[Finding] = await asyncio.to_thread(
        lambda: [*kernel(), *machine(settings), *signers(settings)]
    )
    if elsewhere:
        found += await access.repository(settings)
    if wanted and reach is not None:
        found += await access.artifacts(wanted, reach)
    return {"findings": [finding.as_json() for finding in found]}
