"""No program begins in a release that somebody changed on this host: it is put right first, or not begun."""

from __future__ import annotations

import asyncio
import os

from agent.artifact.artifacts import Artifacts
from agent.deploy.pinning import shares
from agent.domain.errors import Failure, Transient
from agent.domain.events import Bus, DriftFound
from agent.domain.spec import AppSpec

DEADLINE = 900.0  # seconds for fetching a release once more
_FEW = 4


class Wholeness:
    """Looks at releases before they are used. Nobody fetches anything for one that nobody changed."""

    def __init__(self, artifacts: Artifacts, bus: Bus) -> None:
        self._artifacts = artifacts
        self._bus = bus

    async def ensure(self, spec: AppSpec, release: str, *, thorough: bool = False) -> tuple[str, ...]:
        """See to it that a release is what was unpacked; returns what was not, and is now.

        Raises Transient (ReleaseDamaged) when it is not, and cannot be fetched again now; OSError.
        """
        if spec.artifact is None or not release:
            return ()
        changed: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(DEADLINE):
                found = await self._artifacts.ensure(
                    release, spec.artifact, spec.name, share=shares(spec), thorough=thorough
                )
        except (Failure, TimeoutError) as error:
            look = await self._artifacts.look(release, thorough=False)
            what = told(look.changed)
            why = error.info.message if isinstance(error, Failure) else f"not within {DEADLINE:g} s"
            raise Transient(
                "ReleaseDamaged",
                f"{what} changed on this host since it was unpacked, and it cannot be fetched again: {why}",
                where=release,
                remedy="make the artifact available again, or go back to another version",
            ) from error
        if found.changed:
            changed = tuple(os.fsdecode(path) for path in found.changed)
            self._bus.publish(DriftFound(spec.name, changed, repaired=True))
        return changed

    async def repaired(self, spec: AppSpec, release: str) -> None:
        """Look at all of a release, and put it right. Raises what `ensure` does."""
        await self.ensure(spec, release, thorough=True)


def told(paths: list[bytes]) -> str:
    """Some of the paths, and how many more there are."""
    few = ", ".join(os.fsdecode(path) for path in paths[:_FEW])
    return f"{few} and {len(paths) - _FEW} more" if len(paths) > _FEW else few or "something"
