"""Which deployments may go: by age, and by what the store may take. Pure.

How many an app keeps is the specification's `keep`; what stands here are the host's own bounds. What serves,
is wanted, is being deployed or was the last good one never goes, whatever the bounds say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """A deployment on disk. `age` in seconds since it last served; `needed` ones stay."""

    app: str
    spec: str
    release: str
    age: float
    needed: bool


def surplus(
    kept: Collection[Kept], sizes: Mapping[str, int], *, most_age: float, most_bytes: int
) -> list[Kept]:
    """What may go, oldest first.

    Args:
        kept: every deployment of every app.
        sizes: bytes of each release.
        most_age: seconds; 0 for no bound.
        most_bytes: of all releases together, each counted once; 0 for no bound.
    """
    gone: list[Kept] = []
    staying = sorted(kept, key=lambda one: one.age, reverse=True)
    stuck = {one.release for one in kept if one.needed}
    for one in list(staying):
        too_old = bool(most_age) and one.age > most_age
        too_much = bool(most_bytes) and one.release not in stuck and _together(staying, sizes) > most_bytes
        if (too_old or too_much) and not one.needed:
            staying.remove(one)
            gone.append(one)
    return gone


def _together(kept: Collection[Kept], sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(release, 0) for release in {one.release for one in kept})
