"""From a specification as it was written to one whose artifact's digest is known."""

from __future__ import annotations

import msgspec

from agent.artifact.artifacts import Artifacts
from agent.artifact.release import release_id
from agent.domain.spec import AppSpec


async def pinned(artifacts: Artifacts, spec: AppSpec) -> tuple[AppSpec, str]:
    """The specification with its checksum looked up, and the id of its release ("" without an artifact).

    Raises Failure.
    """
    if spec.artifact is None:
        return spec, ""
    artifact = await artifacts.pin(spec.artifact)
    return msgspec.structs.replace(spec, artifact=artifact), release_id(artifact, spec.name)
