"""From a specification as it was written to one whose artifact's digest is known."""

from __future__ import annotations

import os

import msgspec

from agent.artifact.artifacts import Artifacts
from agent.artifact.release import release_id
from agent.domain.spec import AppSpec
from agent.process.users import is_own


def shares(spec: AppSpec) -> bool:
    """Whether the app's release may share files with others: no program of the app can write to it.

    That is so where the agent is root and the app has a user of its own. The commands of an app without
    a program run as the agent.
    """
    return os.geteuid() == 0 and spec.run is not None and not is_own(spec.run.user)


async def pinned(artifacts: Artifacts, spec: AppSpec) -> tuple[AppSpec, str]:
    """The specification with its checksum looked up, and the id of its release ("" without an artifact).

    Raises Failure.
    """
    if spec.artifact is None:
        return spec, ""
    artifact = await artifacts.pin(spec.artifact)
    return msgspec.structs.replace(spec, artifact=artifact), release_id(
        artifact, spec.name, share=shares(spec)
    )
